"""A domain as a process: the models and servicers that every domain has, and its run from start to end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import grpc

from engines.repository import Repository
from services.chassis import open_inference
from services.chassis.models import HostOptions, ModelHost
from services.chassis.open_inference import OpenInferenceServicer
from services.chassis.open_inference_stream import Forwarder
from services.chassis.server import Options, Process, Service
from services.chassis.settings import ServiceSettings, Settings
from services.chassis.telemetry import Telemetry

#: The listener is there a moment after the service, and again after a restart; it limits messages by itself.
_MESH_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)


def _nothing() -> None:
    """There is nothing to close."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a process serves and holds. `host` is started and closed by `Process.run`; `close` gives back the rest."""

    services: tuple[Service, ...]
    host: ModelHost
    close: Callable[[], None] = _nothing


#: Puts a domain together. The channel leads to the mesh's internal listener; None = the process runs alone.
Compose = Callable[[Settings, Telemetry, grpc.aio.Channel | None], Parts]


def section(settings: Settings, service: str) -> ServiceSettings:
    """The service's section of the settings; the defaults when the file has none."""
    return settings.services.get(service) or ServiceSettings()


def host_for(settings: Settings, service: str, telemetry: Telemetry) -> ModelHost:
    """The models of a service, as the settings choose them."""
    mine = section(settings, service)
    options = HostOptions(service, mine.models, mine.cores, mine.defaults, frozenset(settings.models.pull))
    return ModelHost(Repository(settings.models_dir), options, telemetry.batch_observer)


def tensor_service(host: ModelHost, mesh: grpc.aio.Channel | None) -> Service:
    """The Open Inference Protocol over the models of `host`; stream items for other services' models go to `mesh`."""
    tensors = OpenInferenceServicer(host, Forwarder(mesh) if mesh is not None else None)
    # Receipts of Open Inference calls are in the responses, which tritonclient shows; headers it does not.
    return Service(open_inference.SERVICE, tensors, receipt_headers=False)


async def run(compose: Compose, settings: Settings, options: Options, mesh: str = "") -> None:
    """Serve until SIGTERM. `mesh`: address of the internal listener, "" = none. Raises StartError, ConfigError."""
    process = Process(options)
    channel = grpc.aio.insecure_channel(mesh, options=_MESH_OPTIONS) if mesh else None
    parts = compose(settings, process.telemetry, channel)
    try:
        await process.run(parts.services, parts.host)
    finally:
        parts.close()
        if channel is not None:
            await channel.close()

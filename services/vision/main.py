"""The vision service composed: models, decoder, servicers. `run` is the whole process."""

from dataclasses import dataclass

import grpc

from engines.repository import Repository
from services.chassis import open_inference
from services.chassis.models import HostOptions, ModelHost
from services.chassis.open_inference import OpenInferenceServicer
from services.chassis.open_inference_stream import Forwarder
from services.chassis.server import Options, Process, Service
from services.chassis.settings import ServiceSettings, Settings
from services.chassis.telemetry import Telemetry
from services.vision import servicer
from services.vision.pictures import Decoder, PictureRunner
from services.vision.servicer import VisionServicer

NAME = "vision"


@dataclass(frozen=True, slots=True)
class VisionParts:
    """What the process serves and holds; `host` is started and closed by `Process.run`, `decoder` by its owner."""

    services: tuple[Service, ...]
    host: ModelHost
    decoder: Decoder


def compose(settings: Settings, telemetry: Telemetry, mesh: grpc.aio.Channel | None = None) -> VisionParts:
    """Put the service together. `mesh`: where stream items for models of other services go; None = nowhere."""
    mine = settings.services.get(NAME) or ServiceSettings()
    options = HostOptions(NAME, mine.models, mine.cores, mine.defaults)
    host = ModelHost(Repository(settings.models_dir), options, telemetry.batch_observer)
    decoder = Decoder(mine.cores)
    vision = VisionServicer(host, PictureRunner(host, decoder, mine.max_pixels), mine.max_items)
    tensors = OpenInferenceServicer(host, Forwarder(mesh) if mesh is not None else None)
    services = (
        Service(servicer.SERVICE, vision),
        # Receipts of Open Inference calls are in the responses, which tritonclient shows; headers it does not.
        Service(open_inference.SERVICE, tensors, receipt_headers=False),
    )
    return VisionParts(services, host, decoder)


async def run(settings: Settings, options: Options, mesh: str = "") -> None:
    """Serve until SIGTERM. `mesh`: address of the internal listener, "" = none. Raises StartError, ConfigError."""
    process = Process(options)
    channel = grpc.aio.insecure_channel(mesh) if mesh else None
    parts = compose(settings, process.telemetry, channel)
    try:
        await process.run(parts.services, parts.host)
    finally:
        parts.decoder.close()
        if channel is not None:
            await channel.close()

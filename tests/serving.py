"""A service on a real port in the test's own event loop."""

import contextlib
import importlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from services.chassis import rpc
from services.chassis.drain import Gate
from services.chassis.metrics import Metrics
from services.chassis.models import ModelHost
from services.chassis.settings import Settings
from services.chassis.telemetry import Telemetry


@dataclass(frozen=True)
class Served:
    """Where the service listens, and what is in it. `servicer`: of the typed service; `gate`: the service's door."""

    address: str
    host: ModelHost
    servicer: object
    gate: Gate


@contextlib.asynccontextmanager
async def serving(
    name: str,
    models: Path,
    flags: dict[str, object] | None = None,
    mesh: grpc.aio.Channel | None = None,
    wait: bool = True,
) -> AsyncIterator[Served]:
    """Serve the service called `name`; `flags` are settings by dotted key, `wait`: until every model is loaded."""
    defaults = {f"services.{name}.defaults": {}, f"services.{name}.cores": 1, "models.directory": str(models)}
    settings = Settings.load(flags={**defaults, **(flags or {})}, environ={})
    telemetry, gate = Telemetry(name, Metrics()), Gate()
    parts = importlib.import_module(f"services.{name}.main").compose(settings, telemetry, mesh)
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])
    for service in parts.services:
        policy = rpc.Policy(telemetry=telemetry, receipt_headers=service.receipt_headers, gate=gate)
        server.add_generic_rpc_handlers((rpc.handlers(service.descriptor, service.servicer, policy),))
    server.add_generic_rpc_handlers((rpc.UnknownMethods(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await parts.host.start()
    if wait:
        await parts.host.loaded()
    await server.start()
    try:
        yield Served(f"127.0.0.1:{port}", parts.host, parts.services[0].servicer, gate)
    finally:
        await server.stop(0)
        await parts.host.close()
        parts.close()

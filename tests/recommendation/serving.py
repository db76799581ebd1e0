"""The recommendation service on a real port in the test's own event loop."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from services.chassis import rpc
from services.chassis.metrics import Metrics
from services.chassis.models import ModelHost
from services.chassis.settings import Settings
from services.chassis.telemetry import Telemetry
from services.recommendation.main import compose


@dataclass(frozen=True)
class Served:
    """Where the service listens, and what is in it."""

    address: str
    host: ModelHost


@contextlib.asynccontextmanager
async def serving(
    models: Path, flags: dict[str, object] | None = None, mesh: grpc.aio.Channel | None = None, wait: bool = True
) -> AsyncIterator[Served]:
    """`flags` are settings by dotted key, `wait`: until every model is loaded."""
    defaults = {
        "services.recommendation.defaults": {},
        "services.recommendation.cores": 1,
        "models.directory": str(models),
    }
    settings = Settings.load(flags={**defaults, **(flags or {})}, environ={})
    telemetry = Telemetry("recommendation", Metrics())
    parts = compose(settings, telemetry, mesh)
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 64 << 20)])
    for service in parts.services:
        policy = rpc.Policy(telemetry=telemetry, receipt_headers=service.receipt_headers)
        server.add_generic_rpc_handlers((rpc.handlers(service.descriptor, service.servicer, policy),))
    server.add_generic_rpc_handlers((rpc.UnknownMethods(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await parts.host.start()
    if wait:
        await parts.host.loaded()
    await server.start()
    try:
        yield Served(f"127.0.0.1:{port}", parts.host)
    finally:
        await server.stop(0)
        await parts.host.close()
        parts.close()

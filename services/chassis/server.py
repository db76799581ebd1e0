"""One service process from start to end: bind, serve while models load behind, drain, exit."""

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from services.chassis import health, rpc
from services.chassis.addresses import StartError, check_free, remove_socket
from services.chassis.drain import Gate
from services.chassis.health import Health
from services.chassis.metrics import Metrics, MetricsPage
from services.chassis.reflection import reflection_handlers
from services.chassis.telemetry import Telemetry, otlp_exporter

_log = logging.getLogger(__name__)

_MODELS: Final = "models"

#: gRPC core refuses a message above this many limits by itself; below, the refusal carries details.
_CORE_LIMIT_FACTOR: Final = 4
#: Clients may ping this often; gRPC's own default calls 5 minutes "too many pings" and hangs up.
_MIN_PING_INTERVAL_MS: Final = 5_000
#: A picture arrives in one go; with 64 KiB, the default, its sender waits for window updates several times.
_STREAM_WINDOW_BYTES: Final = 1 << 20
_STOP_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Service:
    """A gRPC service and who answers it. `receipt_headers` off: the servicer puts receipts into its responses."""

    descriptor: ServiceDescriptor
    servicer: object
    receipt_headers: bool = True


class Host(Protocol):
    """What the services compute with: the models of the process."""

    async def start(self, arrived: Callable[[Any], None]) -> None:
        """Begin to load, telling `arrived` of each model that serves. Raises what a user should read as one line."""

    async def loaded(self) -> None:
        """Return when everything that was there at the start has been loaded or given up."""

    def index(self) -> Sequence[Any]:
        """Every model: `name`, `version`, `state` ("READY" or not) and `batcher` (`queued_rows`), None before READY."""

    async def drain(self) -> None:
        """Wait until nothing is queued or running."""

    async def close(self) -> None:
        """Give everything back."""


@dataclass(frozen=True, slots=True)
class Options:
    """How one process serves.

    `listen`: "host:port" (0 = any free port) or "unix:/path". `run_dir`: where `<name>.json` says that the process
    serves; None = nowhere. `otlp_endpoint`: where spans go, "" = nowhere. `grace`: seconds that calls in flight have
    to end once the process is told to stop. `settle`: seconds that what is on its way to or from the process may take.
    `notice`: seconds for which it takes calls after it has said NOT_SERVING, so that a gateway turns to others first.
    `peers`: others can take the calls meanwhile, so it says SERVING only when its models are loaded; alone it says so
    from the start, and each model answers as soon as it can.
    """

    name: str
    listen: str
    run_dir: Path | None = None
    metrics_listen: str = "127.0.0.1:0"
    otlp_endpoint: str = ""
    grace: float = 5.0
    settle: float = 0.1
    notice: float = 0.1
    peers: bool = False
    limits: rpc.Limits = field(default_factory=rpc.Limits)


class Process:
    """What services are composed of, and their run from start to end. Make one inside a running event loop."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.telemetry = Telemetry(options.name, Metrics(), otlp_exporter(options.otlp_endpoint))
        self.health = Health()
        self.gate = Gate()
        self.policy = rpc.Policy(limits=options.limits, telemetry=self.telemetry, gate=self.gate)
        self._stop = asyncio.Event()
        self._settled = False

    def stop(self) -> None:
        """Begin the drain, as SIGTERM does."""
        self._stop.set()

    async def run(self, services: Sequence[Service], host: Host) -> None:
        """Serve until SIGTERM or SIGINT, then drain. Raises StartError, or what `host.start` raises."""
        if self.options.run_dir is not None and not self.options.run_dir.is_dir():
            raise StartError(f"there is no folder {self.options.run_dir} to say in that {self.options.name} serves")
        server = self._build(services)
        async with contextlib.AsyncExitStack() as cleanup:
            cleanup.push_async_callback(asyncio.to_thread, self.telemetry.close)
            address = await self._bind(server, cleanup)
            page = cleanup.enter_context(MetricsPage(self.telemetry.metrics, self.options.metrics_listen))
            await cleanup.enter_async_context(self._signals())
            cleanup.push_async_callback(host.close)
            await host.start(self._arrived)
            await server.start()
            cleanup.push_async_callback(self._drain, server)
            _log.info("%s listens on %s", self.options.name, address, extra={"address": address})
            self._say_ready(address, page.url, cleanup)
            settling = asyncio.create_task(self._settle(host))
            cleanup.callback(settling.cancel)
            await self._stop.wait()

    def _build(self, services: Sequence[Service]) -> grpc.aio.Server:
        limit = self.options.limits.max_message_bytes
        server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", min(limit * _CORE_LIMIT_FACTOR, 2**31 - 1)),
                ("grpc.max_send_message_length", -1),
                ("grpc.http2.min_ping_interval_without_data_ms", _MIN_PING_INTERVAL_MS),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.lookahead_bytes", _STREAM_WINDOW_BYTES),
            ]
        )
        descriptors = [service.descriptor for service in services]
        self.health.add(descriptor.full_name for descriptor in descriptors)
        self.health.set(_MODELS, well=not self.options.peers)
        # Health and reflection answer during the drain too.
        always = replace(self.policy, gate=Gate())
        server.add_generic_rpc_handlers(
            (
                *(rpc.handlers(s.descriptor, s.servicer, self._policy_of(s)) for s in services),
                rpc.handlers(health.SERVICE, self.health, always),
                *reflection_handlers([*descriptors, health.SERVICE], always),
                rpc.UnknownMethods(),
            )
        )
        return server

    def _policy_of(self, service: Service) -> rpc.Policy:
        return replace(self.policy, receipt_headers=service.receipt_headers)

    async def _bind(self, server: grpc.aio.Server, cleanup: contextlib.AsyncExitStack) -> str:
        """The address that was bound, with its real port."""
        listen = self.options.listen
        check_free(listen)
        try:
            port = server.add_insecure_port(listen)
        except RuntimeError as error:
            raise StartError(f"cannot listen on {listen}: {error}") from None
        if listen.startswith("unix:"):
            cleanup.callback(remove_socket, listen)
            return listen
        return f"{listen.rpartition(':')[0]}:{port}"

    def _arrived(self, model: Any) -> None:
        """A model serves from now on."""
        self.telemetry.metrics.watch_queue(model.name, model.version, _queued_rows(model))
        if self._settled:
            self.health.set(_MODELS, well=True)

    async def _settle(self, host: Host) -> None:
        """Say how it stands once the models are loaded; what comes later never takes the process out of the mesh."""
        await host.loaded()
        self._settled, models = True, host.index()
        # One broken model must not take the others out of the mesh; beside a replica that can answer, a service
        # without any is no use.
        useless = bool(models) and all(model.state != "READY" for model in models)
        self.health.set(_MODELS, well=not (self.options.peers and useless))
        gc.collect()
        gc.freeze()  # What is loaded stays: the collector need not look at it again.

    def _say_ready(self, address: str, metrics: str, cleanup: contextlib.AsyncExitStack) -> None:
        """Write the run-file, whole or not at all."""
        if self.options.run_dir is None:
            return
        path = self.options.run_dir / f"{self.options.name}.json"
        facts = {"name": self.options.name, "pid": os.getpid(), "listen": address, "metrics": metrics}
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(facts) + "\n", encoding="utf-8")
        temporary.replace(path)
        cleanup.callback(path.unlink, missing_ok=True)

    async def _drain(self, server: grpc.aio.Server) -> None:
        """NOT_SERVING first, then no new calls, then wait for those in flight."""
        name, grace = self.options.name, self.options.grace
        self.health.drain()
        # What is sent before anyone can know is answered all the same.
        await asyncio.sleep(self.options.notice)
        self.gate.close()
        _log.info("%s drains %d calls", name, self.gate.active)
        if not await self.gate.emptied(grace):
            _log.warning("%s gives up on %d calls after %g s", name, self.gate.active, grace)
        # Once stopped, the server cuts off what still arrives; the gate refuses it with words.
        await self.gate.quiet(self.options.settle, _STOP_SECONDS)
        self.health.close()
        # The last answers may still be on their way out.
        await server.stop(_STOP_SECONDS if self.gate.active == 0 else 0.0)

    @contextlib.asynccontextmanager
    async def _signals(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


def _queued_rows(model: Any) -> Callable[[], float]:
    # A version that has left has no batcher any more.
    return lambda: float(model.batcher.queued_rows) if model.batcher is not None else 0.0

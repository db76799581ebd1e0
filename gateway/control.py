"""The control process: configures Envoy and answers for the mesh as a whole. Never in the path of an inference call.

Envoy --ADS, OTLP--> control.sock <--OTLP-- services
control --health, repository index--> services        `run` reads as the table of contents
"""

import asyncio
import contextlib
import importlib
import logging
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import uvloop
from google.protobuf.descriptor import ServiceDescriptor
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector
from prometheus_client import generate_latest

from gateway import model_service, open_inference, otlp, runfile
from gateway.ads import AdsServer
from gateway.envoy.bootstrap import bootstrap_json
from gateway.envoy.render import render
from gateway.mesh_metrics import collect
from gateway.plain_http import HttpError, fetch, serve_page
from gateway.plan import (
    BOOTSTRAP_FILE,
    CONTROL_PROCESS,
    ENVOY_PROCESS,
    admin_address,
    control_address,
    edge,
    internal_address,
    local_replicas,
    service_nodes,
)
from gateway.runfile import MeshStatus, RunFile
from gateway.sampling import SampleRatio
from gateway.state import MeshState, ModelEntry, Replica
from gateway.topology import Snapshot
from gateway.trace_service import TraceService
from gateway.traces import TraceStore
from gateway.unknown_methods import UnknownMeshMethods
from gateway.watch import Channels, watch_all
from headrace.control.v1 import control_pb2
from services.chassis import health, logs, reflection, rpc
from services.chassis.metrics import Metrics
from services.chassis.settings import Settings
from services.chassis.telemetry import Telemetry

METRICS_PATH = "/metrics"
_SAMPLE_SECONDS = 0.5
_STATUS_SECONDS = 0.1
_GRACE_SECONDS = 0.5

_log = logging.getLogger(__name__)


def run(settings: Settings, run_dir: Path) -> None:
    """Serve `<run_dir>/control.sock` until SIGTERM or SIGINT. Raises OSError when the metrics page cannot be served."""
    logs.set_up(settings.logging.level, CONTROL_PROCESS)
    uvloop.run(_run(settings, run_dir))


async def _run(settings: Settings, run_dir: Path) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    control = Control(settings, run_dir)
    async with control.serving():
        await stop.wait()


class Control:
    """The parts of the control process and how they hang together."""

    def __init__(self, settings: Settings, run_dir: Path) -> None:
        self._settings = settings
        self._run_dir = run_dir
        names = {address: name for name, address in local_replicas(settings, run_dir).items()}
        self.state = MeshState(service_nodes(settings, run_dir), names, _remembered(run_dir))
        self.store = TraceStore(settings.tracing.keep_spans)
        self._ratio = SampleRatio(settings.tracing.max_traces_per_second)
        self._channels = Channels()
        self._ads = AdsServer()
        self._metrics = Metrics()
        self._health = health.Health([open_inference.SERVICE.full_name, *self._rpc_services()])
        self._reachable = False
        self._health.set(ENVOY_PROCESS, well=False)

    def ready(self) -> bool:
        """Say whether every service answers, through Envoy too, and has loaded what it found when it started."""
        return self.state.ready() and self._reachable

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve within the block."""
        server = self._server()
        server.add_insecure_port(control_address(self._run_dir))
        page = await serve_page(self._settings.metrics.listen, METRICS_PATH, self.metrics_page)
        host, port = page.sockets[0].getsockname()[:2]
        await self._publish()
        (self._run_dir / BOOTSTRAP_FILE).write_text(bootstrap_json(self._snapshot(), admin_address(self._run_dir)))
        await server.start()
        loops = (self._follow_state, self._follow_status, self._follow_rate, self._follow_services)
        tasks = [asyncio.create_task(loop(), name=loop.__name__) for loop in loops]
        for task in tasks:
            task.add_done_callback(_note_failure)
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}{METRICS_PATH}"
        about = RunFile(CONTROL_PROCESS, os.getpid(), control_address(self._run_dir), url)
        runfile.write_json(self._run_dir / f"{CONTROL_PROCESS}.json", about)
        _log.info("control serves %s, metrics on %s", about.listen, url)
        try:
            yield
        finally:
            self._health.drain()
            self._health.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            page.close()
            await server.stop(_GRACE_SECONDS)
            await self._channels.close()

    def _server(self) -> grpc.aio.Server:
        gateway = self._settings.gateway
        limit = gateway.max_message_bytes
        options = [("grpc.max_receive_message_length", 2 * limit), ("grpc.max_send_message_length", -1)]
        server = grpc.aio.server(options=options)
        limits = rpc.Limits(gateway.default_deadline_seconds, gateway.max_deadline_seconds, limit)
        policy = rpc.Policy(limits, telemetry=Telemetry(CONTROL_PROCESS, self._metrics))
        to_come = self._settings.models.pull
        mesh_wide = open_inference.MeshOpenInference(self.state, self._channels, self.ready, to_come)
        private = control_pb2.DESCRIPTOR.services_by_name["ControlService"]
        public = [*self._typed_services(), model_service.SERVICE, open_inference.SERVICE, health.SERVICE]
        server.add_generic_rpc_handlers(
            (
                self._ads.handler(),
                rpc.handlers(open_inference.SERVICE, mesh_wide, policy),
                rpc.handlers(model_service.SERVICE, model_service.ModelService(self.state, self._channels), policy),
                rpc.handlers(health.SERVICE, self._health, policy),
                *reflection.reflection_handlers(public, policy),
                rpc.handlers(private, TraceService(self.store), policy),
                self._otlp_receiver(),
                UnknownMeshMethods(service.full_name for service in public),
            )
        )
        return server

    def _otlp_receiver(self) -> grpc.GenericRpcHandler:
        async def export(request: collector.ExportTraceServiceRequest, _context: object) -> object:
            self.store.add(otlp.read_spans(request.resource_spans))
            return collector.ExportTraceServiceResponse()

        method = grpc.unary_unary_rpc_method_handler(
            export,
            collector.ExportTraceServiceRequest.FromString,
            collector.ExportTraceServiceResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(otlp.SERVICE, {"Export": method})

    def _rpc_services(self) -> list[str]:
        return [name for node in self.state.nodes for name in node.rpc_services]

    def _typed_services(self) -> list[ServiceDescriptor]:
        found = []
        for node in self.state.nodes:
            module = importlib.import_module(f"headrace.{node.name}.v1.{node.name}_pb2")
            by_name = {service.full_name: service for service in module.DESCRIPTOR.services_by_name.values()}
            found += [by_name[name] for name in node.rpc_services]
        return found

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            services=self.state.nodes,
            control=control_address(self._run_dir),
            models=self.state.models(),
            internal=internal_address(self._run_dir),
            sample_ratio=self._ratio.ratio,
            edge=edge(self._settings),
        )

    async def _publish(self) -> None:
        await self._ads.publish(render(self._snapshot()))

    async def _follow_services(self) -> None:
        await watch_all(self.state, self._channels)

    async def _follow_state(self) -> None:
        """What the services say becomes Envoy's configuration and the mesh's health."""
        async for _ in self.state.changes():
            await self._publish()
            for node in self.state.nodes:
                concerned = [open_inference.SERVICE.full_name, *node.rpc_services]
                self._health.set(node.name, self.state.serving(node.name), concerned)

    async def _follow_status(self) -> None:
        """The status file says what `headrace up` waits for."""
        written = None
        while True:
            await self._look_through_envoy()
            ads = self._ads.status()
            status = MeshStatus(
                ready=self.ready() and ads.settled and not ads.rejections,
                configured=ads.settled,
                rejected="; ".join(ads.rejections),
                services=self.state.statuses(),
                sample_ratio=self._ratio.ratio,
            )
            if status != written:
                runfile.write_json(self._run_dir / runfile.STATUS_FILE, status)
                if status.rejected and (written is None or status.rejected != written.rejected):
                    _log.error("Envoy refused its configuration and keeps the last good one: %s", status.rejected)
                written = status
            await asyncio.sleep(_STATUS_SECONDS)

    async def _look_through_envoy(self) -> None:
        """Note when Envoy's own health checks have found the services that serve: only then callers reach them."""
        reachable = self.state.all_serving() and (self._reachable or await self._envoy_reaches_all())
        if reachable != self._reachable:
            self._reachable = reachable
            self._health.set(ENVOY_PROCESS, well=reachable)

    async def _envoy_reaches_all(self) -> bool:
        try:
            page = await fetch(admin_address(self._run_dir), "/stats?filter=^cluster\\..*\\.membership_healthy$")
        except HttpError:
            return True  # no Envoy, and so nobody who would come through it
        healthy = dict(line.split(": ", 1) for line in page.body.decode().splitlines() if ": " in line)
        return all(healthy.get(f"cluster.{node.name}.membership_healthy", "0") != "0" for node in self.state.nodes)

    async def _follow_rate(self) -> None:
        """The request rate at the edge decides how much of it is sampled."""
        clock = asyncio.get_running_loop().time
        seen, since = 0, clock()
        while True:
            await asyncio.sleep(_SAMPLE_SECONDS)
            total = await self._requests_at_edge()
            now = clock()
            if total is None:
                continue
            arrived = total - seen if total >= seen else total  # Envoy was restarted
            if self._ratio.observe(arrived, now - since):
                _log.info("sampling %.3g of the calls", self._ratio.ratio)
                await self._publish()
            seen, since = total, now

    async def _requests_at_edge(self) -> int | None:
        try:
            page = await fetch(admin_address(self._run_dir), "/stats?filter=^http\\.edge\\.downstream_rq_total$")
        except HttpError:
            return None
        _, _, count = page.body.partition(b":")
        return int(count) if count.strip().isdigit() else None

    async def metrics_page(self) -> str:
        """Return the Prometheus page of every process of the mesh."""
        pages = {ENVOY_PROCESS: (admin_address(self._run_dir), "/stats/prometheus?usedonly")}
        for found in runfile.read_run_files(self._run_dir):
            if found.metrics and found.name != CONTROL_PROCESS:
                address, _, path = found.metrics.removeprefix("http://").partition("/")
                pages[found.name] = (address, f"/{path or METRICS_PATH[1:]}")
        return await collect(pages, {CONTROL_PROCESS: generate_latest(self._metrics.registry).decode()})


def _remembered(run_dir: Path) -> dict[str, Replica]:
    """What an earlier control process of this mesh last knew, so that a restart takes no model out of the routes."""
    status = runfile.read_status(run_dir)
    services = () if status is None else status.services
    return {
        service.endpoint: Replica(
            models=tuple(ModelEntry(name, "", state, "") for name, state in service.models.items())
        )
        for service in services
    }


def _note_failure(task: "asyncio.Task[None]") -> None:
    """A loop that ends by itself is a fault of ours: end the process, and the supervisor starts a fresh one."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("%s failed", task.get_name(), exc_info=error)
        os.kill(os.getpid(), signal.SIGTERM)

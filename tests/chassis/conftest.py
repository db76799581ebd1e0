"""A real process of the chassis in this event loop, with a servicer that does what a test tells it to."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from headrace.inference import open_inference_pb2 as pb
from services.chassis import rpc
from services.chassis.call import Call, Receipt
from services.chassis.server import Options, Process, Service

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
PATH = f"/{SERVICE.full_name}"


class Servicer:
    """ModelReady runs `answer`, ModelStreamInfer echoes the ids that it reads."""

    def __init__(self) -> None:
        self.answer: Callable[[Any, Call], Awaitable[Any]] = self.ready
        self.calls: list[Call] = []
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def ready(self, request: Any, call: Call) -> Any:
        return pb.ModelReadyResponse(ready=True)

    async def ModelReady(self, request: Any, call: Call) -> Any:  # noqa: N802  # The rpc's name.
        self.calls.append(call)
        self.entered.set()
        try:
            return await self.answer(request, call)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def ModelStreamInfer(  # noqa: N802  # The rpc's name.
        self, requests: AsyncIterator[Any], call: Call
    ) -> AsyncIterator[Any]:
        self.calls.append(call)
        async for request in requests:
            if request.id == "fail":
                raise ValueError("secret words")
            if request.id == "receipt":
                call.receipt = Receipt("double", "1", 1.0, 1.0, 1.0, 1, 0.0)
            yield pb.ModelStreamInferResponse(infer_response=pb.ModelInferResponse(id=request.id))
        await self.go_on.wait()
        yield pb.ModelStreamInferResponse(infer_response=pb.ModelInferResponse(id="last"))


class NoModels:
    """A host with nothing to load; `hold` keeps it loading."""

    def __init__(self) -> None:
        self.hold = asyncio.Event()
        self.hold.set()
        self.closed = False
        self.models: list[Any] = []

    async def start(self, arrived: Callable[[Any], None]) -> None:
        self.arrived = arrived

    async def loaded(self) -> None:
        await self.hold.wait()

    def index(self) -> list[Any]:
        return self.models

    async def drain(self) -> None: ...

    async def close(self) -> None:
        self.closed = True


@dataclass
class Running:
    process: Process
    servicer: Servicer
    host: NoModels
    address: str
    run: "asyncio.Task[None]"
    facts: dict[str, Any] = field(default_factory=dict)
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def channel(self) -> grpc.aio.Channel:
        channel = grpc.aio.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)])
        self.channels.append(channel)
        return channel

    def model_ready(self) -> Any:
        return self.channel().unary_unary(
            f"{PATH}/ModelReady",
            request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            response_deserializer=pb.ModelReadyResponse.FromString,
        )

    def stream(self, metadata: Any = None) -> Any:
        return self.channel().stream_stream(
            f"{PATH}/ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )(metadata=metadata)


Serve = Callable[..., AbstractAsyncContextManager[Running]]


async def poll(condition: Callable[[], Any], within: float = 5.0) -> Any:
    """Wait until the condition is truthy and return what it said."""
    async with asyncio.timeout(within):
        while not (found := condition()):  # What is polled is not always in this loop.
            await asyncio.sleep(0.005)
        return found


@pytest.fixture
def tools() -> SimpleNamespace:
    return SimpleNamespace(poll=poll, path=PATH, service=SERVICE, pb=pb)


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    @asynccontextmanager
    async def run(limits: rpc.Limits | None = None, **options: Any) -> AsyncIterator[Running]:
        options = {
            "name": "test-0",
            "listen": "127.0.0.1:0",
            "run_dir": tmp_path,
            "grace": 3.0,
            "settle": 0.01,
        } | options
        process = Process(Options(limits=limits or rpc.Limits(), **options))
        servicer, host = Servicer(), NoModels()
        task = asyncio.create_task(process.run([Service(SERVICE, servicer)], host))
        file = tmp_path / f"{options['name']}.json"
        try:
            await poll(lambda: file.exists() or task.done())
            if task.done():
                task.result()
            facts = json.loads(file.read_text())
            running = Running(process, servicer, host, facts["listen"], task, facts)
            yield running
            for channel in running.channels:
                await channel.close()
        finally:
            process.stop()
            await asyncio.wait_for(task, 10)

    return run

"""A small vision service over a real transport, and both clients connected to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

import headrace
from headrace.common.v1 import common_pb2
from headrace.vision.v1 import vision_pb2, vision_pb2_grpc

MODEL = common_pb2.ModelRef(name="tiny", version="3")
RECEIPT = (
    ("headrace-queue-ms", "1.5"),
    ("headrace-engine-ms", "4.25"),
    ("headrace-engine-share-ms", "0.53125"),
    ("headrace-batch-rows", "8"),
    ("headrace-padding-ratio", "0"),
    ("headrace-model", "tiny@3"),
)


@dataclass(frozen=True)
class Failure:
    """How the service should end a call: `details` packed into a status, or `trailers` as they are."""

    code: grpc.StatusCode
    message: str = "no"
    details: tuple[Message, ...] = ()
    trailers: tuple[tuple[str, str | bytes], ...] = ()

    def trailing(self) -> tuple[tuple[str, str | bytes], ...]:
        if not self.details:
            return self.trailers
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
            status.details.add().Pack(detail)
        return (*self.trailers, ("grpc-status-details-bin", status.SerializeToString()))


@dataclass
class TinyVision(vision_pb2_grpc.VisionServiceServicer):
    """Labels an image with its own bytes; `failures` are answered first, one a call; `silent` answers nothing."""

    failures: list[Failure] = field(default_factory=list)
    silent: bool = False
    receipt: tuple[tuple[str, str], ...] = RECEIPT
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    requests: list[Message] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    remaining: list[float] = field(default_factory=list)

    async def _enter(self, request: Message, context: Any) -> None:
        self.requests.append(request)
        self.arrived.set()
        self.metadata.append(dict(context.invocation_metadata()))
        self.remaining.append(context.time_remaining())
        if self.failures:
            failure = self.failures.pop(0)
            await context.abort(failure.code, failure.message, failure.trailing())
        if self.silent:
            await asyncio.Event().wait()
        await context.send_initial_metadata(self.receipt)

    async def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802 - the rpc's name
        await self._enter(request, context)
        results = [self._label(index, image.content) for index, image in enumerate(request.images)]
        return vision_pb2.ClassifyResponse(results=results, model=MODEL)

    def _label(self, index: int, content: bytes) -> Any:
        if not content:
            error = status_pb2.Status(code=3, message=f"images[{index}].content: is empty")
            error.details.add().Pack(error_details_pb2.ErrorInfo(reason="INVALID_IMAGE", domain="headrace"))
            return vision_pb2.ClassifyResult(error=error)
        label = content[:64].decode()
        return vision_pb2.ClassifyResult(categories=[common_pb2.Category(label=label, score=0.5, index=7)])

    async def Embed(self, request: Any, context: Any) -> Any:  # noqa: N802 - the rpc's name
        await self._enter(request, context)
        embedding = common_pb2.Embedding(values=[0.6, 0.8])
        results = [common_pb2.EmbedResult(embedding=embedding) for _ in request.images]
        return vision_pb2.EmbedImagesResponse(results=results, model=MODEL)


@dataclass(frozen=True)
class Mesh:
    service: TinyVision
    target: str


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    service = TinyVision()
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 32 << 20)])
    vision_pb2_grpc.add_VisionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield Mesh(service, f"127.0.0.1:{port}")
    await server.stop(None)


class Threaded:
    """The methods of a blocking object, each run in a thread, so that one test body serves both clients."""

    def __init__(self, blocking: object) -> None:
        self._blocking = blocking

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._blocking, name)
        return lambda *args, **kwargs: asyncio.to_thread(method, *args, **kwargs)


@asynccontextmanager
async def _asyncio(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
    async with headrace.AsyncClient(*args, **kwargs) as client:
        yield client.vision


@asynccontextmanager
async def _blocking(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
    with headrace.Client(*args, **kwargs) as client:
        yield Threaded(client.vision)


@pytest.fixture(params=[_blocking, _asyncio], ids=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Callable[..., AbstractAsyncContextManager[Any]]:
    """Make a client of either kind, as an async context manager of its vision calls."""
    return request.param


@pytest.fixture
async def vision(mesh: Mesh, connect: Callable[..., Any]) -> AsyncIterator[Any]:
    async with connect(mesh.target) as calls:
        yield calls


@pytest.fixture
def fail() -> type[Failure]:
    return Failure

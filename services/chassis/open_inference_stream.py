"""ModelStreamInfer: items run side by side and are answered as they finish, each with its id; a failed item is an item.

At most `MAX_IN_FLIGHT` items of a stream are between being read and being written, so that neither a fast sender nor a
slow reader fills the process.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Final

import grpc

from headrace.inference import open_inference_pb2 as pb
from services.chassis import errors
from services.chassis.call import Call
from services.chassis.errors import ServiceError
from services.chassis.telemetry import outgoing

#: Runs one item until the deadline (monotonic seconds). Raises ServiceError.
RunItem = Callable[[pb.ModelInferRequest, Call, float], Awaitable[pb.ModelInferResponse]]
#: Answers an item whose model another service of the mesh has. Raises ServiceError or grpc.RpcError.
Forward = Callable[[pb.ModelInferRequest, Call, float], Awaitable[pb.ModelInferResponse]]

MAX_IN_FLIGHT: Final = 256
#: Triton's request header that turns the first failed item into the end of the stream.
STRICT_HEADER: Final = "triton_grpc_error"

logger = logging.getLogger(__name__)


class ItemStream:
    """The life of one stream; `answers` is consumed once."""

    def __init__(self, run: RunItem, call: Call) -> None:
        self._run = run
        self._call = call
        self._strict = call.metadata.get(STRICT_HEADER) == "true"
        self._room = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._done: asyncio.Queue[pb.ModelStreamInferResponse | BaseException | None] = asyncio.Queue()
        self._items: set[asyncio.Task[None]] = set()

    async def answers(
        self, requests: AsyncIterator[pb.ModelInferRequest]
    ) -> AsyncGenerator[pb.ModelStreamInferResponse, None]:
        """Answer every request; what still runs when the consumer leaves is cancelled."""
        reader = asyncio.create_task(self._read(requests))
        try:
            while (answer := await self._done.get()) is not None:
                if isinstance(answer, BaseException):
                    raise answer
                yield answer
                self._room.release()
        finally:
            tasks = [reader, *self._items]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[pb.ModelInferRequest]) -> None:
        try:
            async for request in requests:
                await self._room.acquire()
                task = asyncio.create_task(self._answer(request))
                self._items.add(task)
                task.add_done_callback(self._items.discard)
            await asyncio.gather(*self._items)
        except Exception as error:  # noqa: BLE001  # Handed to the consumer, which raises it.
            self._done.put_nowait(error)
        else:
            self._done.put_nowait(None)

    async def _answer(self, request: pb.ModelInferRequest) -> None:
        try:
            response = await self._run(request, self._call, self._call.item_deadline())
        except ServiceError as error:
            self._fail(request.id, error)
        except grpc.RpcError as error:
            self._fail(request.id, _foreign(error))
        except Exception:
            trace_id = self._call.trace_id
            logger.exception("an item of a stream failed", extra={"trace_id": trace_id})
            self._fail(request.id, errors.internal(trace_id))
        else:
            response.parameters["triton_final_response"].bool_param = True
            self._done.put_nowait(pb.ModelStreamInferResponse(infer_response=response))

    def _fail(self, request_id: str, error: ServiceError | tuple[str, str]) -> None:
        if self._strict and isinstance(error, ServiceError):
            self._done.put_nowait(error)
            return
        code, message = (error.code.name, error.message) if isinstance(error, ServiceError) else error
        answer = pb.ModelStreamInferResponse(error_message=message)
        answer.infer_response.id = request_id
        answer.infer_response.parameters["headrace_error_code"].string_param = code
        answer.infer_response.parameters["triton_final_response"].bool_param = True
        self._done.put_nowait(answer)


def _foreign(error: grpc.RpcError) -> tuple[str, str]:
    """Code and words of an error that another service gave."""
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code().name, error.details() or error.code().name
    return "UNKNOWN", str(error)


class Forwarder:
    """Sends single items to the mesh's internal listener, which routes them by their model."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )

    async def __call__(self, request: pb.ModelInferRequest, call: Call, deadline: float) -> pb.ModelInferResponse:
        """The other service's answer, in the caller's trace. Raises grpc.RpcError."""
        timeout = max(0.0, deadline - time.monotonic())
        answer: pb.ModelInferResponse = await self._infer(request, timeout=timeout, metadata=outgoing(call))
        return answer

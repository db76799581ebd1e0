"""Open Inference calls that concern the mesh as a whole, or a model that no route knows."""

# The names and signatures of rpcs are the protocol's.
# ruff: noqa: N802, ARG002

import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from importlib import metadata
from typing import Any, NoReturn

import grpc

from gateway.rollout import Rollout
from gateway.state import READY, MeshState
from gateway.watch import CALL_SECONDS, Channels, inference_stub
from headrace.inference import open_inference_pb2 as pb
from services.chassis.call import Call
from services.chassis.errors import ServiceError, invalid_argument, model_unavailable, not_found, quote, relayed
from services.chassis.model_table import awaited
from services.chassis.open_inference_stream import Forwarder, ItemStream

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]


class MeshOpenInference:
    """The servicer; `ready` says whether the whole mesh is, `fetched` names the models that come by themselves.

    A model that is known here has a route of its own, so what asks for one came before its route, or is compressed:
    Envoy cannot look into that, and with models in several services it is answered through here.
    """

    def __init__(
        self, state: MeshState, channels: Channels, ready: Callable[[], bool], fetched: Collection[str] = ()
    ) -> None:
        self._state = state
        self._fetched = fetched
        self._channels = channels
        self._ready = ready
        self._rollout = Rollout(state, channels)
        try:
            self._version = metadata.version("headrace-mesh")
        except metadata.PackageNotFoundError:
            self._version = "0"  # a bare source tree

    async def ServerLive(self, request: Any, call: Call) -> Any:
        """Say that something answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, call: Call) -> Any:
        """Say whether every service of the mesh answers."""
        return pb.ServerReadyResponse(ready=self._ready())

    async def ServerMetadata(self, request: Any, call: Call) -> Any:
        """Return name, version, and the extensions that all services have."""
        return pb.ServerMetadataResponse(name="headrace", version=self._version, extensions=self._state.extensions())

    async def RepositoryIndex(self, request: Any, call: Call) -> Any:
        """Return the models of all services; with `ready` only those that are."""
        if request.repository_name:
            raise invalid_argument("repository_name", f"is {quote(request.repository_name)}, must be empty: one exists")
        response = pb.RepositoryIndexResponse()
        for entry in self._state.index():
            if entry.state == READY or not request.ready:
                response.models.add(name=entry.name, version=entry.version, state=entry.state, reason=entry.reason)
        return response

    async def ModelStatistics(self, request: Any, call: Call) -> Any:
        """Return the statistics of every model when none is named."""
        if request.name:
            return await self._ask("ModelStatistics", request, call)
        merged = pb.ModelStatisticsResponse()
        for node in self._state.nodes:
            for endpoint in node.endpoints:
                stub = inference_stub(self._channels.get(endpoint))
                try:
                    part = await stub.ModelStatistics(request, timeout=min(call.time_remaining(), CALL_SECONDS))
                except grpc.aio.AioRpcError:
                    continue  # a replica that is away has no statistics either
                merged.model_stats.extend(part.model_stats)
        return merged

    async def RepositoryModelLoad(self, request: Any, call: Call) -> Any:
        """Load a model on every replica of the service that holds it."""
        self._named(request)
        await self._rollout.change("RepositoryModelLoad", request, call)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, call: Call) -> Any:
        """Unload a model on every replica of the service that holds it."""
        self._named(request)
        await self._rollout.change("RepositoryModelUnload", request, call)
        return pb.RepositoryModelUnloadResponse()

    async def ModelReady(self, request: Any, call: Call) -> Any:
        """Ask the service that holds the model, or refuse."""
        return await self._ask("ModelReady", request, call)

    async def ModelMetadata(self, request: Any, call: Call) -> Any:
        """Ask the service that holds the model, or refuse."""
        return await self._ask("ModelMetadata", request, call)

    async def ModelConfig(self, request: Any, call: Call) -> Any:
        """Ask the service that holds the model, or refuse."""
        return await self._ask("ModelConfig", request, call)

    async def ModelInfer(self, request: Any, call: Call) -> Any:
        """Run the model where it is, or refuse."""
        try:
            return await self._forward(request, call, call.deadline)
        except grpc.aio.AioRpcError as error:
            raise relayed(error, request.model_name) from None

    async def ModelStreamInfer(self, requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
        """Answer each item: by the service that holds its model, or with an error in the stream."""
        async with contextlib.aclosing(ItemStream(self._forward, call).answers(requests)) as answers:
            async for answer in answers:
                yield answer

    async def _forward(self, request: Any, call: Call, deadline: float) -> Any:
        return await Forwarder(self._holder("model_name", request.model_name))(request, call, deadline)

    async def _ask(self, method: str, request: Any, call: Call) -> Any:
        """Have the holder of the model `request.name` answer."""
        stub = inference_stub(self._holder("name", request.name))
        try:
            return await getattr(stub, method)(request, timeout=min(call.time_remaining(), CALL_SECONDS))
        except grpc.aio.AioRpcError as error:
            raise relayed(error, request.name) from None

    def _holder(self, field: str, name: str) -> grpc.aio.Channel:
        """Return the channel to a replica that holds the model. Raises ServiceError when there is none."""
        service = self._state.models().get(name.partition("@")[0])
        if service is None:
            self._refuse(field, name)
        return self._channels.get(self._state.endpoints(service)[0])

    def _named(self, request: Any) -> None:
        if not request.model_name:
            self._refuse("model_name", "")

    def _refuse(self, field: str, name: str) -> NoReturn:
        raise self.refusal(field, name)

    def refusal(self, field: str, name: str) -> ServiceError:
        """Return the error for a model that has no route (yet)."""
        if not name:
            return invalid_argument(field, "is empty, must name a model: RepositoryIndex lists them")
        known = self._state.models()
        if name.partition("@")[0] in known:
            return model_unavailable(name, "its route is being set up; try again")
        if name.partition("@")[0] in self._fetched:
            return awaited(name)
        return not_found("model", name, known)

"""The Open Inference Protocol over the models of one process, with Triton's ordinary extensions.

What is missing here on purpose (shared memory, trace and log settings) is answered UNIMPLEMENTED.
"""

# The names and signatures of rpcs are the protocol's.
# ruff: noqa: N802, ARG002

import contextlib
import importlib.metadata
from collections.abc import AsyncIterator
from typing import Final

from headrace.inference import open_inference_pb2 as pb
from services.chassis import open_inference_models as describe
from services.chassis.call import Call
from services.chassis.errors import invalid_argument, model_unavailable
from services.chassis.models import LoadedModel, ModelHost
from services.chassis.open_inference_infer import infer
from services.chassis.open_inference_stream import Forward, ItemStream

#: Only what is true: clients decide by these what they may ask for.
EXTENSIONS: Final = ("classification", "model_configuration", "model_repository", "parameters", "statistics")
SERVICE: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]


class OpenInferenceServicer:
    """Answers `inference.GRPCInferenceService`. `forward` answers stream items for models of other services."""

    def __init__(self, host: ModelHost, forward: Forward | None = None) -> None:
        self._host = host
        self._forward = forward

    async def ServerLive(self, request: pb.ServerLiveRequest, call: Call) -> pb.ServerLiveResponse:
        """True: who can answer lives."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, call: Call) -> pb.ServerReadyResponse:
        """True once the models that were there at the start are loaded; a broken one speaks for itself (ModelReady)."""
        return pb.ServerReadyResponse(ready=self._host.settled)

    async def ModelReady(self, request: pb.ModelReadyRequest, call: Call) -> pb.ModelReadyResponse:
        """True when the model can be called now. Raises NOT_FOUND."""
        found = self._host.meant(request.name, request.version)
        return pb.ModelReadyResponse(ready=found.state == "READY")

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, call: Call) -> pb.ServerMetadataResponse:
        """Who this is."""
        return pb.ServerMetadataResponse(name="headrace", version=server_version(), extensions=EXTENSIONS)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, call: Call) -> pb.ModelMetadataResponse:
        """A model's tensors. Raises NOT_FOUND, UNAVAILABLE."""
        found = self._ready_model(request.name, request.version)
        models = self._host.find(request.name, request.version)
        versions = [model.version for model in models if model.state == "READY"]
        return describe.metadata(found, versions)

    async def ModelConfig(self, request: pb.ModelConfigRequest, call: Call) -> pb.ModelConfigResponse:
        """How a model is served. Raises NOT_FOUND, UNAVAILABLE."""
        return pb.ModelConfigResponse(config=describe.config(self._ready_model(request.name, request.version)))

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, call: Call) -> pb.ModelStatisticsResponse:
        """What models did since they were loaded; those not loaded did nothing. Raises NOT_FOUND."""
        name, version = request.name, request.version
        if version and not name:
            raise invalid_argument("version", "is set without a name; name the model too")
        models = self._host.find(name, version) if name else self._host.index()
        return pb.ModelStatisticsResponse(model_stats=[describe.statistics(model) for model in models if model.batcher])

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, call: Call) -> pb.RepositoryIndexResponse:
        """The models of this process and their states."""
        if request.repository_name:
            raise invalid_argument("repository_name", "must be empty: there is one repository")
        return describe.index(self._host.index(), ready=request.ready)

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, call: Call
    ) -> pb.RepositoryModelLoadResponse:
        """Load a model's highest version, or the one that the parameter `version` names; see `ModelHost.load`."""
        await self._host.load(*describe.repository_target(request))
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, call: Call
    ) -> pb.RepositoryModelUnloadResponse:
        """Unload every version of a model, or the one that the parameter `version` names; see `ModelHost.unload`."""
        await self._host.unload(*describe.repository_target(request))
        return pb.RepositoryModelUnloadResponse()

    async def ModelInfer(self, request: pb.ModelInferRequest, call: Call) -> pb.ModelInferResponse:
        """Run a model once."""
        return await infer(self._host, request, call, call.deadline)

    async def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], call: Call
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Run models once for each message."""
        answers = ItemStream(self._item, call).answers(requests)
        async with contextlib.aclosing(answers):
            async for answer in answers:
                yield answer

    async def _item(self, request: pb.ModelInferRequest, call: Call, deadline: float) -> pb.ModelInferResponse:
        if self._forward is not None and not self._host.serves(request.model_name):
            return await self._forward(request, call, deadline)
        return await infer(self._host, request, call, deadline)

    def _ready_model(self, name: str, version: str) -> LoadedModel:
        found = self._host.meant(name, version)
        if found.state != "READY":
            raise model_unavailable(found.name, found.reason or "it is still loading")
        return found


def server_version() -> str:
    """The version of this installation; "0" when it runs from a bare source tree."""
    try:
        return importlib.metadata.version("headrace-mesh")
    except importlib.metadata.PackageNotFoundError:
        return "0"

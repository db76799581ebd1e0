"""ModelService: the models of the mesh as a whole, and having their versions come and go."""

# The names and signatures of rpcs are the API's.
# ruff: noqa: N802, ARG002

import asyncio
from bisect import bisect_right
from typing import Any

import grpc

from gateway.rollout import Change, Rollout
from gateway.state import READY, Held, MeshState, version_number
from gateway.watch import CALL_SECONDS, Channels, inference_stub
from headrace.inference import open_inference_pb2 as inference
from headrace.model.v1 import model_pb2 as pb
from services.chassis.call import Call
from services.chassis.errors import TABLE, ServiceError, invalid_argument, not_found

SERVICE = pb.DESCRIPTOR.services_by_name["ModelService"]
_PAGE = 50
_MAX_PAGE = 1000


class ModelService:
    """Answers from what the services say of themselves."""

    def __init__(self, state: MeshState, channels: Channels) -> None:
        self._state = state
        self._channels = channels
        self._rollout = Rollout(state, channels)

    async def ListModels(self, request: Any, call: Call) -> pb.ListModelsResponse:
        """Return one page of the models, by name."""
        if request.page_size < 0:
            raise invalid_argument("page_size", f"is {request.page_size}, must be 0 (50 models) or more")
        names = sorted(self._state.models())
        size = min(request.page_size or _PAGE, _MAX_PAGE)
        first = bisect_right(names, request.page_token)
        page = names[first : first + size]
        more = first + size < len(names)
        models = await asyncio.gather(*(self._model(name) for name in page))
        return pb.ListModelsResponse(models=models, next_page_token=page[-1] if more else "")

    async def GetModel(self, request: Any, call: Call) -> pb.GetModelResponse:
        """Return one model. Raises NOT_FOUND."""
        return pb.GetModelResponse(model=await self._model(_named(request)))

    async def LoadModel(self, request: Any, call: Call) -> pb.LoadModelResponse:
        """Have a version serve on every replica. Raises NOT_FOUND, FAILED_PRECONDITION with the reason."""
        await self._change("RepositoryModelLoad", inference.RepositoryModelLoadRequest, request, call)
        return pb.LoadModelResponse(model=await self._model(request.name))

    async def UnloadModel(self, request: Any, call: Call) -> pb.UnloadModelResponse:
        """Have a version, or all, leave every replica once their calls have ended. Raises NOT_FOUND."""
        await self._change("RepositoryModelUnload", inference.RepositoryModelUnloadRequest, request, call)
        return pb.UnloadModelResponse(model=await self._model(request.name))

    async def SetTraffic(self, request: Any, call: Call) -> pb.SetTrafficResponse:
        """Refuse: there is no division of traffic yet."""
        raise ServiceError(
            TABLE["UNKNOWN_METHOD"],
            {"method": "ModelService/SetTraffic"},
            message="calls cannot be divided among versions: those that name none go to the highest version that "
            'serves; call a version as "name@version", or unload the highest one to go back to the one before',
        )

    async def _change(self, change: Change, kind: Any, request: Any, call: Call) -> None:
        asked = kind(model_name=_named(request))
        if request.version:
            asked.parameters["version"].string_param = request.version
        await self._rollout.change(change, asked, call)

    async def _model(self, name: str) -> pb.Model:
        held = self._state.held(name)
        if held is None:
            raise not_found("model", name, self._state.models())
        model = pb.Model(name=name, service=held.service, versions=_versions(held))
        ready = [version.version for version in model.versions if version.state == pb.MODEL_STATE_READY]
        if ready:
            model.default_version = ready[-1]
            await self._describe(model, held)
        return model

    async def _describe(self, model: pb.Model, held: Held) -> None:
        """Add what the manifest says, as a replica with the model READY tells it; one just gone leaves it out."""
        serving = [endpoint for endpoint, entries in held.replicas.items() if any(e.state == READY for e in entries)]
        asked = inference.ModelMetadataRequest(name=model.name, version=model.default_version)
        for endpoint in serving:
            try:
                about = await inference_stub(self._channels.get(endpoint)).ModelMetadata(asked, timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError:
                continue
            model.platform = about.platform
            model.summary, model.licence = about.properties["summary"], about.properties["licence"]
            model.tasks.extend(filter(None, about.properties["tasks"].split(",")))
            return


def _named(request: Any) -> str:
    if not request.name:
        raise invalid_argument("name", "is empty, must name a model: ListModels lists them")
    return str(request.name)


def _versions(held: Held) -> list[pb.ModelVersion]:
    """Every version that a replica knows, rising, each as the best replica has it."""
    found: dict[str, pb.ModelVersion] = {}
    for entries in held.replicas.values():
        for entry in entries:
            version = found.setdefault(entry.version, pb.ModelVersion(version=entry.version))
            version.replicas = len(held.replicas)
            version.ready_replicas += entry.state == READY
            state = pb.ModelState.Value(f"MODEL_STATE_{entry.state}")
            if version.state != pb.MODEL_STATE_READY:
                version.state = state
            version.reason = version.reason or entry.reason
    return [found[number] for number in sorted(found, key=version_number)]

"""The models of the mesh: which versions serve, and having them come and go."""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass

from headrace._results import Receipt
from headrace._transport import AsyncCaller, Caller, CallOptions, Rpc
from headrace.model.v1 import model_pb2

_PAGE = 200


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a model.

    `state`: "LOADING", "READY", "UNLOADING" or "UNAVAILABLE"; READY when any replica has it READY. `reason`: why it is
    not so everywhere.
    """

    version: str
    state: str
    reason: str
    ready_replicas: int
    replicas: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model of the repository; what stands below `default_version` is empty while no version is READY.

    `versions`: rising. `default_version`: the one that answers calls which name none.
    """

    name: str
    service: str
    versions: tuple[ModelVersion, ...]
    default_version: str
    tasks: tuple[str, ...]
    platform: str
    summary: str
    licence: str


@dataclass(frozen=True, slots=True)
class _Page:
    models: tuple[ModelInfo, ...]
    token: str


def _version(version: model_pb2.ModelVersion) -> ModelVersion:
    state = model_pb2.ModelState.Name(version.state).removeprefix("MODEL_STATE_")
    return ModelVersion(version.version, state, version.reason, version.ready_replicas, version.replicas)


def _info(model: model_pb2.Model) -> ModelInfo:
    return ModelInfo(
        name=model.name,
        service=model.service,
        versions=tuple(_version(version) for version in model.versions),
        default_version=model.default_version,
        tasks=tuple(model.tasks),
        platform=model.platform,
        summary=model.summary,
        licence=model.licence,
    )


def _page(response: model_pb2.ListModelsResponse, _receipt: Receipt | None) -> _Page:
    return _Page(tuple(_info(model) for model in response.models), response.next_page_token)


def _got(response: model_pb2.GetModelResponse, _receipt: Receipt | None) -> ModelInfo:
    return _info(response.model)


def _loaded(response: model_pb2.LoadModelResponse, _receipt: Receipt | None) -> ModelInfo:
    return _info(response.model)


def _unloaded(response: model_pb2.UnloadModelResponse, _receipt: Receipt | None) -> ModelInfo:
    return _info(response.model)


_SERVICE = "/headrace.model.v1.ModelService"
_LIST = Rpc(f"{_SERVICE}/ListModels", model_pb2.ListModelsResponse, _page)
_GET = Rpc(f"{_SERVICE}/GetModel", model_pb2.GetModelResponse, _got)
_LOAD = Rpc(f"{_SERVICE}/LoadModel", model_pb2.LoadModelResponse, _loaded)
_UNLOAD = Rpc(f"{_SERVICE}/UnloadModel", model_pb2.UnloadModelResponse, _unloaded)


class Models:
    """Blocking calls of the model service, reached as `client.models`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def list(self, *, timeout: float | None = None, metadata: Mapping[str, str] | None = None) -> Iterator[ModelInfo]:
        """Iterate over the models of the mesh by name; pages are fetched as they are reached.

        Raises:
            HeadraceError: a call failed.
        """
        token = ""
        while True:
            request = model_pb2.ListModelsRequest(page_size=_PAGE, page_token=token)
            page = self._caller.unary(_LIST, request, CallOptions(timeout, metadata))
            yield from page.models
            token = page.token
            if not token:
                return

    def get(self, name: str, *, timeout: float | None = None, metadata: Mapping[str, str] | None = None) -> ModelInfo:
        """One model.

        Raises:
            NotFound: no service of the mesh has it.
            HeadraceError: the call failed otherwise.
        """
        return self._caller.unary(_GET, model_pb2.GetModelRequest(name=name), CallOptions(timeout, metadata))

    def load(
        self,
        name: str,
        version: str = "",
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> ModelInfo:
        """Have a version ("" = the highest folder) serve on every replica; return the model once it does.

        A version that serves is loaded anew if its files have changed, without its callers noticing. `timeout`:
        seconds, the client's when None; the mesh goes on loading when it passes.

        Raises:
            NotFound: the repository has no such model or version.
            FailedPrecondition: it cannot be loaded, for the reason in the message; what served before still does.
            HeadraceError: the call failed otherwise.
        """
        request = model_pb2.LoadModelRequest(name=name, version=version)
        return self._caller.unary(_LOAD, request, CallOptions(timeout, metadata))

    def unload(
        self,
        name: str,
        version: str = "",
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> ModelInfo:
        """Have a version ("" = all of them) take no new calls; return once those in flight have ended.

        Until `load`, callers of an unloaded model hear Unavailable.

        Raises:
            NotFound: the mesh has no such model or version.
            HeadraceError: the call failed otherwise.
        """
        request = model_pb2.UnloadModelRequest(name=name, version=version)
        return self._caller.unary(_UNLOAD, request, CallOptions(timeout, metadata))


class AsyncModels:
    """Calls of the model service for asyncio, reached as `client.models`; see `Models`."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def list(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it is the rpc's deadline, which the server must know too
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncIterator[ModelInfo]:
        """Iterate over the models of the mesh by name; see `Models.list`."""
        token = ""
        while True:
            request = model_pb2.ListModelsRequest(page_size=_PAGE, page_token=token)
            page = await self._caller.unary(_LIST, request, CallOptions(timeout, metadata))
            for model in page.models:
                yield model
            token = page.token
            if not token:
                return

    async def get(
        self,
        name: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it is the rpc's deadline, which the server must know too
        metadata: Mapping[str, str] | None = None,
    ) -> ModelInfo:
        """One model; see `Models.get`."""
        return await self._caller.unary(_GET, model_pb2.GetModelRequest(name=name), CallOptions(timeout, metadata))

    async def load(
        self,
        name: str,
        version: str = "",
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it is the rpc's deadline, which the server must know too
        metadata: Mapping[str, str] | None = None,
    ) -> ModelInfo:
        """Have a version serve on every replica; see `Models.load`."""
        request = model_pb2.LoadModelRequest(name=name, version=version)
        return await self._caller.unary(_LOAD, request, CallOptions(timeout, metadata))

    async def unload(
        self,
        name: str,
        version: str = "",
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it is the rpc's deadline, which the server must know too
        metadata: Mapping[str, str] | None = None,
    ) -> ModelInfo:
        """Have a version, or all of them, leave; see `Models.unload`."""
        request = model_pb2.UnloadModelRequest(name=name, version=version)
        return await self._caller.unary(_UNLOAD, request, CallOptions(timeout, metadata))

"""The models of one process by name: which one a caller means, and what a caller hears who means none of them."""

import asyncio
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NoReturn

from engines.base import Signature
from engines.batcher import Batcher
from engines.manifest import Manifest
from engines.repository import Entry
from services.chassis import errors
from services.chassis.errors import ServiceError
from services.chassis.model_folders import Fingerprint
from services.chassis.model_stats import ModelStats
from services.chassis.tensors import TensorCodec

State = Literal["LOADING", "READY", "UNLOADING", "UNAVAILABLE"]
LOADING: Final = "it is still loading"
#: What a caller's field is called by the task that it asks for; the typed services call it `model`.
_FIELD: Final = {"tensor": "model_name"}
#: Calls that a version remembers before it forgets those that have ended.
_USERS: Final = 512


@dataclass(slots=True)
class LoadedModel:
    """One version of a model in this process. What stands below `backend` is there from READY on.

    `files`: what it was loaded from. `unloaded`: a caller has asked for that, so it comes back only when one asks.
    """

    name: str
    version: str
    manifest: Manifest | None
    state: State = "LOADING"
    reason: str = ""
    backend: str = ""
    signature: Signature = field(default_factory=lambda: Signature((), ()))
    labels: tuple[str, ...] = ()
    batcher: Batcher | None = None
    codec: TensorCodec | None = None
    engines: int = 0
    folder: Path | None = None
    stats: ModelStats = field(default_factory=ModelStats)
    files: Fingerprint = ()
    unloaded: bool = False
    _users: list["weakref.ref[asyncio.Task[object]]"] = field(default_factory=list)
    _look_through_at: int = _USERS

    def hold(self) -> None:
        """Note that the running task, an rpc, will use this version until it ends. A thread has no such task."""
        try:
            task = asyncio.current_task()
        except RuntimeError:
            return
        if task is not None:
            self._users.append(weakref.ref(task))
            if len(self._users) > self._look_through_at:
                self._users = [user for user in self._users if _runs(user)]
                self._look_through_at = max(_USERS, 2 * len(self._users))

    @property
    def held(self) -> bool:
        """Whether an rpc that has resolved this version is still running."""
        self._users = [user for user in self._users if _runs(user)]
        return bool(self._users)

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the model answers beside Open Inference calls."""
        return self.manifest.tasks if self.manifest is not None else ()


def _runs(user: "weakref.ref[asyncio.Task[object]]") -> bool:
    task = user()
    return task is not None and not task.done()


class ModelTable:
    """Names to models. `defaults`: task or role -> model. `awaited`: whether a model is expected to arrive later."""

    def __init__(self, defaults: Mapping[str, str], awaited: Callable[[str], bool] = lambda _name: False) -> None:
        self._defaults = defaults
        self._awaited = awaited
        self._models: dict[str, dict[str, LoadedModel]] = {}
        self._references: dict[str, LoadedModel] = {}

    def __contains__(self, name: str) -> bool:
        """Whether a model of that name is here, in whatever state."""
        return name in self._models

    @property
    def names(self) -> frozenset[str]:
        """Every model, in whatever state."""
        return frozenset(self._models)

    def put(self, entry: Entry, versions: Sequence[LoadedModel]) -> Sequence[LoadedModel]:
        """Take a model in, in place of an earlier one of its name; return what is to be loaded, newest first."""
        self.drop(entry.name)
        if entry.error is not None:
            versions = [LoadedModel(entry.name, "", None, "UNAVAILABLE", str(entry.error))]
        self._models[entry.name] = {model.version: model for model in versions}
        self._references |= {f"{entry.name}@{model.version}": model for model in versions if model.version}
        self.choose(entry.name)
        return list(reversed(versions)) if entry.error is None else []

    def drop(self, name: str) -> None:
        """Forget a model, if it is here."""
        for version in self._models.pop(name, {}):
            self._references.pop(f"{name}@{version}", None)
        self._references.pop(name, None)

    def take(self, model: LoadedModel) -> None:
        """Put one version beside the others of its model, in place of an earlier one of its number."""
        versions = {**self._models.get(model.name, {}), model.version: model}
        versions.pop("", None)
        self._models[model.name] = dict(sorted(versions.items(), key=lambda pair: int(pair[0])))
        self._references[f"{model.name}@{model.version}"] = model
        self.choose(model.name)

    def remove(self, model: LoadedModel) -> None:
        """Forget one version of a model that has others."""
        self._models[model.name].pop(model.version)
        self._references.pop(f"{model.name}@{model.version}")
        self.choose(model.name)

    def choose(self, name: str) -> None:
        """Have the bare name mean the highest version that serves; without one, the highest that might."""
        versions = self.versions(name)
        ready = [model for model in versions if model.state == "READY"]
        hopeful = [model for model in versions if not model.unloaded]
        self._references[name] = (ready or hopeful or versions)[-1]

    def meant(self, name: str, version: str) -> LoadedModel:
        """The version that callers get, in whatever state. Raises ServiceError, see `missing`."""
        found = self._references.get(f"{name}@{version}" if version else name)
        return found if found is not None else self.missing(f"{name}@{version}" if version else name)

    def index(self) -> list[LoadedModel]:
        """Every version of every model, by name."""
        return [model for name in sorted(self._models) for model in self._models[name].values()]

    def versions(self, name: str) -> list[LoadedModel]:
        """Every version of a model, highest last; none for a name that is not here."""
        return list(self._models.get(name, {}).values())

    def find(self, name: str, version: str) -> list[LoadedModel]:
        """The version of a model in whatever state, or all its versions (""). Raises ServiceError, see `missing`."""
        if version:
            known = self._references.get(f"{name}@{version}")
            return [known if known is not None else self.missing(f"{name}@{version}")]
        if name not in self._models:
            self.missing(name)
        return self.versions(name)

    def resolve(self, model: str, task: str, role: str) -> LoadedModel:
        """See `ModelHost.resolve`."""
        found = self._references.get(model)
        if found is None:
            found = self._default(task, role) if not model else self.missing(model)
        if found.state != "READY":
            raise errors.model_unavailable(found.name, found.reason or LOADING)
        if task != "tensor" and task not in found.tasks:
            problem = f"model {errors.quote(found.name)} does not {task}; {self._choices(task)}"
            raise errors.invalid_argument(_FIELD.get(task, "model"), problem)
        return found

    def missing(self, reference: str) -> NoReturn:
        """Raise for a reference that is not in the table: UNAVAILABLE if its model is to arrive, else NOT_FOUND."""
        name, _, version = reference.partition("@")
        if name in self._models and version:
            known = [f"{name}@{known}" for known in self._models[name] if known]
            raise errors.not_found("model version", reference, known)
        if self._awaited(name):
            raise awaited(name)
        raise errors.not_found("model", reference, self._models)

    def _default(self, task: str, role: str) -> LoadedModel:
        named = self._defaults.get(role) or self._defaults.get(task)
        if named is not None:
            found = self._references.get(named)
            if found is None and named.partition("@")[0] not in self._models:
                raise awaited(named)
            return found or self.missing(named)
        able = self._able(task)
        if len(able) == 1:
            return self._references[able[0]]
        raise errors.invalid_argument(
            _FIELD.get(task, "model"), f"is empty and there is no default; {self._choices(task)}"
        )

    def _able(self, task: str) -> list[str]:
        return [name for name in sorted(self._models) if task == "tensor" or task in self._references[name].tasks]

    def _choices(self, task: str) -> str:
        able = self._able(task)
        listed = ", ".join(able[:8]) + (", ..." if len(able) > 8 else "")
        return f"choose one of: {listed}" if able else f"no model of this service can {task}"


def awaited(name: str) -> ServiceError:
    """The error for a model that the mesh is meant to have and that is not in the repository yet."""
    problem = (
        f"it is not in the repository yet; `headrace up` fetches it behind the running mesh, "
        f"and `headrace models pull {name}` fetches it now"
    )
    return errors.model_unavailable(name, problem, retry_after=5.0)

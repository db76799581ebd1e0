"""The models of one process by name: which one a caller means, and what a caller hears who means none of them."""

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
from services.chassis.model_stats import ModelStats
from services.chassis.tensors import TensorCodec

State = Literal["LOADING", "READY", "UNAVAILABLE"]
LOADING: Final = "it is still loading"
#: What a caller's field is called by the task that it asks for; the typed services call it `model`.
_FIELD: Final = {"tensor": "model_name"}


@dataclass(slots=True)
class LoadedModel:
    """One version of a model in this process. What stands below `backend` is there from READY on."""

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

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the model answers beside Open Inference calls."""
        return self.manifest.tasks if self.manifest is not None else ()


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

    def put(self, entry: Entry) -> Sequence[LoadedModel]:
        """Take an entry in, in place of an earlier one of its name; return what is to be loaded, newest first."""
        self.drop(entry.name)
        versions = {str(number): LoadedModel(entry.name, str(number), entry.manifest) for number in entry.versions}
        if entry.error is not None:
            versions = {"": LoadedModel(entry.name, "", None, "UNAVAILABLE", str(entry.error))}
        self._models[entry.name] = versions
        self._references |= {f"{entry.name}@{version}": model for version, model in versions.items() if version}
        self._references[entry.name] = list(versions.values())[-1]
        return list(reversed(versions.values())) if entry.error is None else []

    def drop(self, name: str) -> None:
        """Forget a model, if it is here."""
        for version in self._models.pop(name, {}):
            self._references.pop(f"{name}@{version}", None)
        self._references.pop(name, None)

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

"""The recommenders of one host: each a ranking network with its tables and the retrieval network it needs."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engines.base import Tensors
from engines.recommender import served
from engines.recommender.csv_tables import DatasetError
from engines.recommender.served import Tables
from engines.sections.recommendation import Recommender as Section
from engines.work import Work
from services.chassis import errors
from services.chassis.call import Call
from services.chassis.errors import ServiceError
from services.chassis.models import LoadedModel, ModelHost
from services.recommendation.places import Places, joined, window

#: Tensors of a retrieval network.
HISTORY: Final = "history"
USER: Final = "user"
SCORES: Final = "scores"
SIMILAR: Final = "similar"


@dataclass(frozen=True, slots=True)
class Found:
    """What retrieval says of a history: `user` [1, width] for the ranking network, `scores` and `similar` [items]."""

    user: npt.NDArray[Any]
    scores: npt.NDArray[Any]
    similar: npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Recommender:
    """One version of a recommender, ready to be asked."""

    host: ModelHost
    model: LoadedModel
    section: Section
    tables: Tables

    def history(self, user_id: str, history: Iterable[str]) -> Places | None:
        """What is known of the caller's user as item numbers, oldest first: the stored choices, then the history sent.

        Unknown items of a history are passed over. None when neither a user nor a history is asked for. Raises
        ServiceError NOT_FOUND when nothing known is left.
        """
        asked = list(history)
        if not user_id and not asked:
            return None
        stored = self.tables.histories.get(user_id, np.array([], np.int32))
        fresh = [place for place in map(self.tables.places.get, asked) if place is not None]
        if not len(stored) and not fresh:
            raise errors.not_found("user", user_id) if user_id else errors.not_found("item", asked[0])
        return joined(stored, fresh) if fresh else stored.astype(np.int64)

    async def retrieve(self, history: Places, call: Call) -> Found:
        """One run of the retrieval network. Raises ServiceError."""
        network = self._retrieval()
        length = next(spec.shape[1] for spec in network.signature.inputs if spec.name == HISTORY)
        outputs = await self._run(network, {HISTORY: window(history, int(length))}, call)
        return Found(outputs[USER], outputs[SCORES][0], outputs[SIMILAR][0])

    async def score(self, history: Places, candidates: Places, call: Call) -> npt.NDArray[np.float32]:
        """Scores [n] of the candidates [n] in one run of the ranking network. Raises ServiceError."""
        if self.section.retrieval:
            return await self.score_for((await self.retrieve(history, call)).user, candidates, call)
        spec = next(spec for spec in self.model.signature.inputs if spec.name == self.section.user)
        return await self.score_for(window(history, int(spec.shape[1])), candidates, call)

    async def score_for(self, user: npt.NDArray[Any], candidates: Places, call: Call) -> npt.NDArray[np.float32]:
        """Scores [n] of the candidates [n] for one user's row [1, width]. Raises ServiceError."""
        section = self.section
        inputs = {section.user: np.repeat(user, len(candidates), axis=0), section.item: candidates[:, None]}
        outputs = await self._run(self.model, inputs, call)
        return np.asarray(outputs[section.score], np.float32).ravel()

    async def _run(self, model: LoadedModel, inputs: Tensors, call: Call) -> Tensors:
        rows = len(next(iter(inputs.values())))
        outcome = await self.host.infer(model, Work(inputs, rows, call.deadline, call.trace))
        call.record(model.name, model.version, [outcome])
        return outcome.outputs

    def _retrieval(self) -> LoadedModel:
        """The retrieval network. Raises ServiceError UNAVAILABLE when it is missing or is another catalogue's."""
        name = self.section.retrieval
        try:
            network = self.host.resolve(name, "tensor")
        except ServiceError as error:
            raise errors.model_unavailable(self.model.name, f"it needs model {name}: {error.message}") from error
        problem = _mismatch(network, len(self.tables))
        if problem:
            raise errors.model_unavailable(self.model.name, f"its retrieval {name} {problem}")
        return network


def _mismatch(network: LoadedModel, items: int) -> str:
    inputs = {spec.name: spec for spec in network.signature.inputs}
    outputs = {spec.name: spec for spec in network.signature.outputs}
    if set(inputs) != {HISTORY} or len(inputs[HISTORY].shape) != 2 or not isinstance(inputs[HISTORY].shape[1], int):
        return f"must have one input, {HISTORY} INT64 [rows, places]"
    for name in (USER, SCORES, SIMILAR):
        if name not in outputs or len(outputs[name].shape) != 2:
            return f"must have an output {name} of two axes"
        size = outputs[name].shape[1]
        if name != USER and isinstance(size, int) and size != items:
            return f"gives {name} of {size} items, but the catalogue has {items}"
    return ""


@dataclass(slots=True)
class Recommenders:
    """The recommenders of a host by the names that callers use. Belongs to its event loop."""

    host: ModelHost
    _ready: dict[tuple[str, str], Recommender] = field(default_factory=dict)

    async def get(self, reference: str, task: str) -> Recommender:
        """The recommender called so, "" = the default for `task`. Raises ServiceError, see `ModelHost.resolve`."""
        model = self.host.resolve(reference, task)
        key = (model.name, model.version)
        ready = self._ready.get(key)
        if ready is None or ready.model is not model:
            ready = self._ready[key] = await self._make(model)
        return ready

    async def _make(self, model: LoadedModel) -> Recommender:
        """Loading the model has read its tables already; what has changed since is read again, in a thread."""
        section = model.manifest.recommender if model.manifest is not None else None
        if section is None or model.folder is None:
            raise errors.model_unavailable(model.name, "its manifest has no [recommender] section")
        try:
            tables = await asyncio.to_thread(served.load, model.folder, section.items, section.interactions)
        except DatasetError as error:
            raise errors.model_unavailable(model.name, str(error)) from error
        return Recommender(self.host, model, section, tables)

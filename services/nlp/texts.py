"""The texts of one call through tokenizer and engine: grouped by length, a few runs at a time."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engines.work import Outcome, Work
from services.chassis import errors
from services.chassis.call import Call
from services.chassis.errors import ServiceError
from services.chassis.models import LoadedModel, ModelHost
from services.chassis.patience import Siblings
from services.chassis.telemetry import span
from services.nlp import transforms
from services.nlp.lengths import Budget, Group, groups
from services.nlp.sections import manifest_of, text_of
from services.nlp.tokenizing import Tokenizers, fixed_length
from services.nlp.tokens import Source, Tokens

#: Of one call and engine: one that runs and one that waits; a call of thousands leaves the queue to others.
_RUNS_INSIDE: Final = 2
#: Numbers that are pooled where they arrive, in less time than a thread would need to be told.
_POOL_AT_ONCE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class TextCall:
    """One call's texts and the model they go to.

    `output`: what of the model is wanted. `field`: what the caller's message calls the texts. `no_truncate`: a text
    longer than the model reads is an error of that text.
    """

    model: LoadedModel
    call: Call
    sources: Sequence[Source]
    output: str
    field: str = "texts"
    no_truncate: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """What a model made of one text, [width], and how many tokens it read."""

    values: npt.NDArray[Any]
    token_count: int


class TextRunner:
    """Runs texts on models. `max_text_bytes` caps one text, as UTF-8."""

    def __init__(self, host: ModelHost, tokenizers: Tokenizers, max_text_bytes: int) -> None:
        self._host = host
        self._tokenizers = tokenizers
        self._max_text_bytes = max_text_bytes

    async def run(self, texts: TextCall) -> list[Read | ServiceError]:
        """What became of each text, in order; the call gets its receipt.

        Raises ServiceError for what concerns the call as a whole: no room for its first texts, no time, no engines.
        """
        model, count = texts.model, len(texts.sources)
        results: list[Read | ServiceError | None] = [self._too_long(texts, place) for place in range(count)]
        places = [place for place, found in enumerate(results) if found is None]
        with span(texts.call, "transform"):
            tokens = await self._tokenizers.encode(model, [texts.sources[place] for place in places]) if places else []
        read = dict(zip(places, tokens, strict=True))
        if texts.no_truncate:
            for place in [place for place in places if read[place].cut]:
                results[place] = _cut(texts, place)
                del read[place]
        if read:
            runs = _CallRuns(self._host, texts, read, (await self._tokenizers.of(model)).pad_id)
            for place, found in (await runs.all()).items():
                results[place] = found
            if runs.outcomes:
                texts.call.record(model.name, model.version, runs.outcomes)
        return [found for found in results if found is not None]

    def too_long(self, text: str) -> str:
        """What is wrong with a text that has more bytes than are accepted; nothing for any other."""
        # Counting the bytes of a text costs more than its characters, of at most four bytes each.
        if len(text) * 4 <= self._max_text_bytes:
            return ""
        size = len(text.encode())
        limit = self._max_text_bytes
        return f"has {size} bytes, at most {limit} are accepted: send less" if size > limit else ""

    def _too_long(self, texts: TextCall, place: int) -> ServiceError | None:
        source = texts.sources[place]
        problem = self.too_long(source if isinstance(source, str) else source[1])
        return errors.invalid_argument(f"{texts.field}[{place}]", problem) if problem else None


class _CallRuns:
    """The runs that one call's texts are spread over. `outcomes`: of those that were computed."""

    def __init__(self, host: ModelHost, texts: TextCall, read: dict[int, Tokens], pad_id: int) -> None:
        self._host, self._texts, self._read, self._pad_id = host, texts, read, pad_id
        self._siblings = Siblings()
        self._dtypes = {spec.name: spec.dtype for spec in texts.model.signature.inputs}
        self._budget = budget(texts.model)
        self.outcomes: list[Outcome] = []

    async def all(self) -> dict[int, Read | ServiceError]:
        """What became of each text by its place in the call."""
        order = list(self._read)
        planned = groups([len(self._read[place]) for place in order], self._budget)
        runs = iter([Group(tuple(order[index] for index in group.places), group.length) for group in planned])
        found: dict[int, Read | ServiceError] = {}

        async def work() -> None:
            for run in runs:
                found.update(await self._run(run))

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(len(planned), _RUNS_INSIDE * self._texts.model.engines)):
                    tasks.create_task(work())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return found

    async def _run(self, run: Group) -> dict[int, Read | ServiceError]:
        """One run; when the engine fails on it, each of its texts alone, to find the one that it fails on."""
        tokens = [self._read[place] for place in run.places]
        lengths = [len(text) for text in tokens]
        call = self._texts.call
        inputs = transforms.inputs(tokens, run.length, self._dtypes, self._pad_id)
        padding = 1.0 - sum(lengths) / (run.length * len(tokens))
        try:
            work = Work(inputs, len(tokens), call.deadline, call.trace, padding)
            outcome = await self._siblings.run(lambda: self._host.infer(self._texts.model, work))
        except ServiceError as error:
            if error.reason != "ENGINE_FAILED":
                raise
            if len(run.places) == 1:
                return {run.places[0]: error}
            found: dict[int, Read | ServiceError] = {}
            for place in run.places:
                found.update(await self._run(Group((place,), self._budget.padded(len(self._read[place]), 1))))
            return found
        self.outcomes.append(outcome)
        values = await self._pooled(outcome.outputs[self._texts.output], lengths)
        return {place: Read(values[row], lengths[row]) for row, place in enumerate(run.places)}

    async def _pooled(self, output: npt.NDArray[Any], lengths: list[int]) -> npt.NDArray[Any]:
        pooling = text_of(self._texts.model).pooling
        if output.ndim == 2 or output.size <= _POOL_AT_ONCE:
            return transforms.pooled(output, lengths, pooling)
        return await asyncio.to_thread(transforms.pooled, output, lengths, pooling)


def budget(model: LoadedModel) -> Budget:
    """How large the runs of a model are."""
    text, batching, fixed = text_of(model), manifest_of(model).batching, fixed_length(model)
    max_rows = batching.max_rows if model.signature.batchable else 1
    longest = fixed or text.max_tokens
    max_tokens = batching.max_tokens or max_rows * longest
    return Budget(max_rows, max_tokens, text.pad_to, longest, fixed)


def stacked(found: Sequence[Read]) -> npt.NDArray[Any]:
    """The values of several texts as rows."""
    return np.stack([read.values for read in found])


def _cut(texts: TextCall, place: int) -> ServiceError:
    limit = min(text_of(texts.model).max_tokens, fixed_length(texts.model) or text_of(texts.model).max_tokens)
    problem = f"is longer than the {limit} tokens that model {texts.model.name} reads; shorten it or allow truncation"
    return errors.invalid_argument(f"{texts.field}[{place}]", problem)

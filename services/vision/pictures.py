"""The pictures of one call through decoding and the engine: a bounded number at a time, each with its own verdict."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engines.base import Tensors
from engines.manifest import Image, Manifest
from engines.work import Deferred, Outcome, Work
from services.chassis import errors
from services.chassis.call import Call
from services.chassis.errors import ServiceError
from services.chassis.models import LoadedModel, ModelHost
from services.chassis.patience import Siblings
from services.chassis.telemetry import span
from services.vision.transforms import ImageError, ImageSpec, load_image

_MAX_TRANSFORM_SPANS: Final = 64  # of one call


class Decoder:
    """Threads that decode pictures (the codecs release the GIL), with a bounded line in front of them.

    `waiting`: pictures waiting or being decoded. The line is refused at the door like an engine's queue, so that
    overload does not burn cores on pictures that no engine will see.
    """

    def __init__(self, threads: int, max_waiting: int = 512) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._threads = threads
        self._max_waiting = max_waiting
        self._seconds = 0.005
        self.waiting = 0

    async def load(self, content: bytes, spec: ImageSpec, model: str, deadline: float) -> npt.NDArray[Any]:
        """`load_image` in a thread. Raises ImageError, ServiceError QUEUE_FULL or DEADLINE_EXCEEDED."""
        started = time.monotonic()
        if self.waiting >= self._max_waiting:
            raise errors.queue_full(model, self.waiting * self._seconds / self._threads)
        self.waiting += 1
        try:
            loaded = await asyncio.get_running_loop().run_in_executor(self._pool, _load, content, spec, deadline)
        finally:
            self.waiting -= 1
        if loaded is None:
            raise errors.deadline_exceeded("decoding", deadline - started)
        tensor, seconds = loaded
        self._seconds += (seconds - self._seconds) * 0.1
        return tensor

    def close(self) -> None:
        """Drop what waits; a decode that runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _load(content: bytes, spec: ImageSpec, deadline: float) -> tuple[npt.NDArray[Any], float] | None:
    started = time.monotonic()
    if started >= deadline:
        return None
    tensor = load_image(content, spec)
    return tensor, time.monotonic() - started


@dataclass(frozen=True, slots=True)
class PictureCall:
    """One call's pictures and the model they go to; `content` gives the bytes of the picture at an index."""

    model: LoadedModel
    call: Call
    count: int
    content: Callable[[int], bytes]


class PictureRunner:
    """Runs pictures on models. `max_pixels` caps width x height of one, from its header."""

    def __init__(self, host: ModelHost, decoder: Decoder, max_pixels: int) -> None:
        self._host = host
        self._decoder = decoder
        self._max_pixels = max_pixels
        self._specs: dict[tuple[str, str], ImageSpec] = {}

    async def run(self, pictures: PictureCall) -> list[Outcome | ServiceError]:
        """An outcome of one row, or why this picture failed, for each picture in order.

        Raises ServiceError for what concerns the call as a whole: no room for its first picture, no time, no engines.
        """
        results: list[Outcome | ServiceError | None] = [None] * pictures.count
        runner = _CallRunner(self, pictures)
        if pictures.count == 1:
            return [await runner.one(0)]
        indexes = iter(range(pictures.count))

        async def work() -> None:
            for index in indexes:
                results[index] = await runner.one(index)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(pictures.count, self.window(pictures.model))):
                    group.create_task(work())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [result for result in results if result is not None]

    def window(self, model: LoadedModel) -> int:
        """How many pictures of one call are on their way: enough to keep every engine full, never the whole queue."""
        batching = _manifest(model).batching
        return max(1, min(2 * batching.max_rows * model.engines, batching.max_queue_rows // 4))

    def spec(self, model: LoadedModel) -> ImageSpec:
        """The model's preprocessing."""
        key = (model.name, model.version)
        if key not in self._specs:
            image = _image(model)
            datatype = next(spec.datatype for spec in model.signature.inputs if spec.name == image.input)
            numbers = image.model_dump(exclude={"input"})
            self._specs[key] = ImageSpec(**numbers, datatype=datatype, max_pixels=self._max_pixels)
        return self._specs[key]

    async def load(self, content: bytes, model: LoadedModel, deadline: float) -> npt.NDArray[Any]:
        """The input tensor of one picture, of one row."""
        return await self._decoder.load(content, self.spec(model), model.name, deadline)

    async def infer(self, model: LoadedModel, work: Work) -> Outcome:
        """One picture through the batcher."""
        return await self._host.infer(model, work)


class _CallRunner:
    """What the pictures of one call share."""

    def __init__(self, runner: PictureRunner, pictures: PictureCall) -> None:
        self._runner = runner
        self._pictures = pictures
        self._siblings = Siblings()
        self._input = _image(pictures.model).input
        self._spec = runner.spec(pictures.model)
        batcher = pictures.model.batcher
        self._prepares_inputs = batcher is not None and batcher.prepares_inputs

    async def one(self, index: int) -> Outcome | ServiceError:
        """Decode, compute; what only this picture is to blame for comes back as a value.

        An engine that computes on the thread that calls it decodes there too: handing pixels over costs more.
        """
        if self._prepares_inputs:
            return await self._compute(index, self._deferred(index))
        try:
            with span(self._pictures.call, "transform") if index < _MAX_TRANSFORM_SPANS else contextlib.nullcontext():
                tensor = await self._siblings.run(lambda: self._load(index))
        except ImageError as error:
            return _refused(index, error)
        return await self._compute(index, {self._input: tensor})

    async def _compute(self, index: int, inputs: Tensors | Deferred) -> Outcome | ServiceError:
        call, model = self._pictures.call, self._pictures.model
        work = Work(inputs, 1, call.deadline, call.trace)
        try:
            return await self._siblings.run(lambda: self._runner.infer(model, work))
        except ImageError as error:
            return _refused(index, error)
        except ServiceError as error:
            if error.reason == "ENGINE_FAILED":
                return error
            raise

    def _deferred(self, index: int) -> Deferred:
        """How the engine makes the picture's tensor by itself."""
        content, spec, name = self._pictures.content, self._spec, self._input

        def make() -> Tensors:
            return {name: load_image(content(index), spec)}

        return Deferred(make, {name: spec.shape})

    async def _load(self, index: int) -> npt.NDArray[Any]:
        pictures = self._pictures
        return await self._runner.load(pictures.content(index), pictures.model, pictures.call.deadline)


def _refused(index: int, error: ImageError) -> ServiceError:
    return errors.invalid_argument(f"images[{index}].content", str(error))


def _manifest(model: LoadedModel) -> Manifest:
    assert model.manifest is not None  # noqa: S101  # A model without one never resolves.
    return model.manifest


def _image(model: LoadedModel) -> Image:
    image = _manifest(model).image
    if image is None:
        raise errors.model_unavailable(model.name, "its manifest has no [image] section")
    return image


def probabilities(scores: npt.NDArray[Any], activation: str) -> npt.NDArray[np.float32]:
    """Scores [classes] as the manifest's `activation` makes them: softmax, sigmoid or none; float32."""
    values = scores.astype(np.float32, copy=False).ravel()
    if activation == "softmax":
        exponents = np.exp(values - values.max())
        return np.asarray(exponents / exponents.sum(), np.float32)
    if activation == "sigmoid":
        # In halves, so that neither sign overflows.
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)), np.float32)
    return values


def best(values: npt.NDArray[np.float32], top_k: int) -> Sequence[int]:
    """Indexes of the `top_k` largest values, largest first; equal values in their order."""
    least = np.partition(values, -top_k)[-top_k] if top_k < len(values) else np.nan
    if np.isnan(least):
        return _ordered(values)[:top_k]
    # Sorting the few candidates costs half of sorting all.
    candidates = np.flatnonzero(values >= least)
    return [int(candidates[place]) for place in _ordered(values[candidates])[:top_k]]


def _ordered(values: npt.NDArray[np.float32]) -> list[int]:
    order: list[int] = np.argsort(-values, kind="stable").tolist()
    return order


def unit(vector: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """A vector scaled to length 1; one of zeros stays."""
    values = vector.astype(np.float32, copy=False).ravel()
    length = float(np.sqrt(np.dot(values.astype(np.float64), values)))
    return values / np.float32(length) if length > 0.0 else values

"""Reads pages: a detector finds their lines, a recogniser reads each line, all through the batchers.

Every line is a work of its own, so that lines of all calls share batches by their widths; a page has a bounded number
of them on the way, and the process a bounded number of pages in memory. Pixels are handled in threads.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np

from engines.base import Array
from engines.work import Outcome, Work
from services.chassis import errors
from services.chassis.call import Call
from services.chassis.errors import ServiceError
from services.chassis.models import LoadedModel, ModelHost
from services.chassis.telemetry import span
from services.vision.reading_boxes import Quad, Quads, quads_of
from services.vision.reading_crops import cut, is_tall, parts, turned
from services.vision.reading_crops import tensor_of as line_tensor
from services.vision.reading_models import Networks
from services.vision.reading_order import reading_order
from services.vision.reading_page import Page, load_page
from services.vision.reading_text import CharactersError, Reading, joined, read_steps
from services.vision.reading_tiles import Tile, finer_scale, first_scale, merged, tiles_of
from services.vision.reading_tiles import tensor_of as tile_tensor
from services.vision.transforms import ImageError

Result = TypeVar("Result")

#: What is read with less may be upside down: upright print was read with 0.92 and more, turned with 0.87 and less.
_SURE: Final = 0.9
_MAX_WAITING: Final = 512  # Pages.
_MAX_TRANSFORM_SPANS: Final = 64  # Of one call.
_TILES_AT_ONCE: Final = 2
_PAUSE: Final = 0.02


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text; `polygon` [4, 2] are points in the pixels of the picture as sent, from the text's top left."""

    text: str
    confidence: float
    polygon: Array


@dataclass(slots=True)
class PagesCall:
    """One call's pictures; what its networks computed is collected in `found` and `read`."""

    networks: Networks
    call: Call
    count: int
    content: Callable[[int], bytes]
    found: list[Outcome] = field(default_factory=list)
    read: list[Outcome] = field(default_factory=list)


class PageReader:
    """Reads pictures with at most `max_pixels`. `threads`: how many handle pixels; a few more pages are in memory."""

    def __init__(self, host: ModelHost, threads: int, max_pixels: int) -> None:
        self._host = host
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
        self._pages = threads + 2
        self._room = asyncio.Semaphore(self._pages)
        self._waiting = 0
        self._seconds = 1.0
        self.max_pixels = max_pixels

    def close(self) -> None:
        """Drop what waits for a thread; what runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def read(self, pages: PagesCall) -> list[list[Line] | ServiceError]:
        """The lines of each picture in reading order, or why this picture failed.

        Raises ServiceError for what concerns the call as a whole: no room, no time, no engines.
        """
        results: dict[int, list[Line] | ServiceError] = {}
        indexes = iter(range(pages.count))

        async def work() -> None:
            for index in indexes:
                results[index] = await self._page(pages, index)

        await _together([work] * min(pages.count, self._pages))
        return [results[index] for index in range(pages.count)]

    async def _page(self, pages: PagesCall, index: int) -> list[Line] | ServiceError:
        """One page; what only this picture is to blame for comes back as a value."""
        if self._waiting >= _MAX_WAITING:
            raise errors.queue_full(pages.networks.reader.name, self._waiting * self._seconds / self._pages)
        self._waiting += 1
        try:
            await self._room.acquire()
        finally:
            self._waiting -= 1
        started = time.monotonic()
        try:
            return await _PageRun(self, pages, index).lines()
        except ImageError as error:
            return errors.invalid_argument(f"images[{index}].content", str(error))
        except ServiceError as error:
            if error.reason == "ENGINE_FAILED":
                return error
            raise
        finally:
            self._room.release()
            self._seconds += (time.monotonic() - started - self._seconds) * 0.1

    async def in_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function that handles pixels."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def infer(self, model: LoadedModel, name: str, tensor: Array, call: Call) -> Outcome:
        """One tensor through the model's batcher; where others have filled its queue, it waits its turn."""
        while True:
            try:
                return await self._host.infer(model, Work({name: tensor}, 1, call.deadline, call.trace))
            except ServiceError as error:
                if error.reason != "QUEUE_FULL":
                    raise
            await asyncio.sleep(_PAUSE)


class _PageRun:
    """One page on its way."""

    def __init__(self, reader: PageReader, pages: PagesCall, index: int) -> None:
        self._reader = reader
        self._pages = pages
        self._index = index
        self._networks = pages.networks
        self._call = pages.call

    async def lines(self) -> list[Line]:
        """Raises ImageError, ServiceError."""
        content = self._pages.content(self._index)
        with self._span():
            page = await self._reader.in_thread(load_page, content, self._reader.max_pixels)
        quads = await self._find(page)
        if len(quads) == 0:
            return []
        read = await self._recognise(page, quads)
        return await self._reader.in_thread(_in_order, page, read, self._networks.numbers.recognition.min_confidence)

    def _span(self) -> contextlib.AbstractContextManager[None]:
        return span(self._call, "transform") if self._index < _MAX_TRANSFORM_SPANS else contextlib.nullcontext()

    async def _find(self, page: Page) -> Quads:
        """The outlines of the lines, found in one look or, where they are too small for it, in a second, finer one."""
        numbers = self._networks.numbers.detection
        height, width = page.pixels.shape[:2]
        scale = first_scale(width, height, numbers)
        quads = await self._look(page, tiles_of(width, height, scale, numbers))
        heights = np.linalg.norm(quads[:, 3] - quads[:, 0], axis=1)
        finer = finer_scale(scale, heights, numbers)
        return quads if finer == scale else await self._look(page, tiles_of(width, height, finer, numbers))

    async def _look(self, page: Page, tiles: Sequence[Tile]) -> Quads:
        found: dict[int, Quads] = {}
        indexes = iter(range(len(tiles)))

        async def work() -> None:
            for index in indexes:
                found[index] = await self._look_at(page, tiles[index])

        await _together([work] * min(len(tiles), _TILES_AT_ONCE))
        if len(tiles) == 1:
            return found[0]
        return await self._reader.in_thread(merged, [found[index] for index in range(len(tiles))])

    async def _look_at(self, page: Page, tile: Tile) -> Quads:
        numbers, detector = self._networks.numbers.detection, self._networks.detector
        with self._span():
            tensor = await self._reader.in_thread(tile_tensor, page.pixels, tile, numbers)
        outcome = await self._reader.infer(detector, numbers.input, tensor, self._call)
        self._pages.found.append(outcome)
        with self._span():
            quads = await self._reader.in_thread(quads_of, outcome.outputs[numbers.output][0, 0], numbers)
        return tile.to_page(quads)

    async def _recognise(self, page: Page, quads: Quads) -> list[tuple[Quad, Reading]]:
        """Every line read, lines of like widths one after the other, so that they meet in a batch."""
        wide = np.linalg.norm(quads[:, 1] - quads[:, 0], axis=1) / np.linalg.norm(quads[:, 3] - quads[:, 0], axis=1)
        order = iter(np.argsort(np.maximum(wide, 1 / wide), kind="stable").tolist())
        read: dict[int, tuple[Quad, Reading]] = {}

        async def work() -> None:
            for index in order:
                read[index] = await self._upright(page, quads[index])

        await _together([work] * min(len(quads), self._window()))
        return list(read.values())

    def _window(self) -> int:
        """Lines of one page on the way: enough to keep the engines full, a small share of the queue."""
        reader = self._networks.reader
        assert reader.manifest is not None  # noqa: S101  # A model without one never resolves.
        batching = reader.manifest.batching
        return max(1, min(2 * batching.max_rows * reader.engines, batching.max_queue_rows // 16))

    async def _upright(self, page: Page, quad: Quad) -> tuple[Quad, Reading]:
        """The line read in the direction in which it makes more sense; lines that run up or down are turned first."""
        quad = turned(quad, 1) if is_tall(quad) else quad
        reading = await self._read(page, quad)
        if reading.confidence >= _SURE:
            return quad, reading
        other = turned(quad, 2)
        reverse = await self._read(page, other)
        return (other, reverse) if reverse.confidence > reading.confidence else (quad, reading)

    async def _read(self, page: Page, quad: Quad) -> Reading:
        numbers, reader = self._networks.numbers.recognition, self._networks.reader
        strips = await self._reader.in_thread(lambda: parts(cut(page.pixels, quad, numbers.height), numbers.max_width))
        readings = []
        for strip in strips:
            tensor = await self._reader.in_thread(line_tensor, strip.pixels, numbers)
            outcome = await self._reader.infer(reader, numbers.input, tensor, self._call)
            self._pages.read.append(outcome)
            try:
                readings.append(read_steps(outcome.outputs, numbers, self._networks.characters))
            except CharactersError as error:
                raise errors.model_unavailable(reader.name, f"{numbers.characters}: {error}") from error
        return joined(readings, [strip.spaced for strip in strips])


def _in_order(page: Page, read: Sequence[tuple[Quad, Reading]], least: float) -> list[Line]:
    """What was read with confidence enough, in reading order."""
    kept = [(quad, reading) for quad, reading in read if reading.text and reading.confidence >= least]
    order = reading_order(np.array([quad for quad, _ in kept], np.float32).reshape(-1, 4, 2))
    return [Line(kept[index][1].text, kept[index][1].confidence, page.as_sent(kept[index][0])) for index in order]


async def _together(works: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run all side by side; the first failure ends the others and is raised by itself."""
    if len(works) == 1:
        await works[0]()
        return
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(_started(work))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _started(work: Callable[[], Awaitable[None]]) -> None:
    await work()

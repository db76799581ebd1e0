"""Real throughput of arrangements of engines: rounds of short runs, arrangements interleaved, medians."""

import random
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from engines.base import Engine, EngineError, EngineLoadError, Tensors
from engines.manifest import Manifest
from engines.onnx import OnnxEngine
from engines.tuning import machine
from engines.tuning.inputs import Inputs
from engines.zoo.errors import ZooError

_MODEL: Final = "model.onnx"
#: Seconds of one run of one arrangement at most; a run is never shorter than one batch an engine.
_LONGEST_RUN: Final = 0.4
_ROUNDS: Final = 5
#: An arrangement below this share of the best median after two rounds is not worth measuring further.
_HOPELESS: Final = 0.7
#: Rates within this share of the best are taken as equal: then smaller batches and fewer engines are better.
_EQUAL: Final = 0.97


@dataclass(frozen=True, slots=True)
class Arrangement:
    """`instances` engines of `threads` threads each, which run batches of `rows` rows of one `version`."""

    version: int
    instances: int
    threads: int
    rows: int


@dataclass(frozen=True, slots=True)
class Measured:
    """An arrangement and its rows a second, one figure a round."""

    arrangement: Arrangement
    rates: tuple[float, ...]

    @property
    def rate(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rates)

    @property
    def milliseconds(self) -> float:
        """How long one batch takes its engine."""
        return 1000.0 * self.arrangement.rows * self.arrangement.instances / self.rate


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: versions of a model on `cores` cores, for about `seconds`, in an order from `seed`.

    `told` hears the share (0..1) of the work that is done.
    """

    folder: Path
    manifest: Manifest
    versions: tuple[int, ...]
    cores: int
    seconds: float = 20.0
    seed: int = 0
    told: Callable[[float], None] = field(default=lambda _share: None)


def layouts(cores: int) -> list[tuple[int, int]]:
    """(engines, threads of each) that fill `cores`: from one thread a core to all in one engine."""
    threads = [1 << power for power in range(cores.bit_length()) if 1 << power <= cores]
    if cores not in threads:
        threads.append(cores)
    return [(cores // each, each) for each in threads]


def row_counts(most: int) -> list[int]:
    """1, 2, 4, ... and `most` itself."""
    return sorted({1 << power for power in range(most.bit_length()) if 1 << power <= most} | {most})


def best(measured: Sequence[Measured]) -> Measured:
    """The smallest batch on the fewest engines among those that are about as fast as the fastest."""
    top = max(item.rate for item in measured)
    good = [item for item in measured if item.rate >= _EQUAL * top]
    return min(good, key=lambda item: (item.arrangement.rows, item.arrangement.instances, -item.rate))


@dataclass(frozen=True, slots=True)
class Measurement:
    """Every arrangement; `sizes` of the inputs' open dimensions; `others`: share of the cores that other work took."""

    measured: list[Measured]
    sizes: Mapping[str, int]
    others: float


def measure(plan: Plan) -> Measurement:
    """Measure every arrangement. Raises ZooError."""
    with ExitStack() as opened:
        bench = _Bench(plan, opened)
        (all_before, own_before), begun = machine.busy(), time.monotonic()
        measured = _rounds(plan, bench)
        (all_after, own_after), seconds = machine.busy(), time.monotonic() - begun
        foreign = (all_after - all_before) - (own_after - own_before)
        return Measurement(measured, bench.inputs.sizes, max(0.0, foreign / (seconds * machine.cores())))


class _Bench:
    """The engines of every version and layout, opened once, and their inputs."""

    def __init__(self, plan: Plan, opened: ExitStack) -> None:
        self._engines: dict[tuple[int, int], list[Engine]] = {}
        first: OnnxEngine | None = None
        for version in plan.versions:
            for instances, threads in layouts(plan.cores):
                group = [_open(plan.folder / str(version) / _MODEL, threads, opened)]
                for _ in range(instances - 1):
                    twin = group[0].twin()
                    group.append(twin or _open(plan.folder / str(version) / _MODEL, threads, opened))
                self._engines[version, threads] = list(group)
                first = first or group[0]
        if first is None:
            raise ZooError(f"{plan.folder}: there is nothing to tune, it has no version")
        self.inputs = Inputs(plan.manifest, first.signature)
        self.inputs.settle(first)
        most = plan.manifest.batching.max_rows if first.signature.batchable else 1
        self.rows = row_counts(self._within_tokens(plan.manifest, most))
        self._batches = {rows: self.inputs.batch(rows) for rows in self.rows}

    def _within_tokens(self, manifest: Manifest, most: int) -> int:
        budget, text = manifest.batching.max_tokens, manifest.text
        lengths = list(self.inputs.sizes.values())
        return most if budget is None or text is None or not lengths else max(1, min(most, budget // max(lengths)))

    def run(self, arrangement: Arrangement, seconds: float) -> float:
        """Rows a second of all engines of the arrangement together. Raises EngineError."""
        engines, batch = self._engines[arrangement.version, arrangement.threads], self._batches[arrangement.rows]
        rates, problems = [0.0] * len(engines), list[EngineError]()
        start = threading.Barrier(len(engines))

        def loop(place: int) -> None:
            start.wait()
            try:
                rates[place] = arrangement.rows * _batches_a_second(engines[place], batch, seconds)
            except EngineError as error:
                problems.append(error)

        threads = [threading.Thread(target=loop, args=(place,)) for place in range(len(engines))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise problems[0]
        return sum(rates)


def _rounds(plan: Plan, bench: _Bench) -> list[Measured]:
    everything = [
        Arrangement(version, instances, threads, rows)
        for version in plan.versions
        for instances, threads in layouts(plan.cores)
        for rows in bench.rows
    ]
    if len(everything) == 1:
        raise ZooError(f"{plan.folder}: there is nothing to tune: one core, and batches of one row")
    order, rates = random.Random(plan.seed), {arrangement: list[float]() for arrangement in everything}  # noqa: S311 - an order, no secret
    begun, alive = time.monotonic(), list(everything)
    for number in range(_ROUNDS):
        left = plan.seconds - (time.monotonic() - begun)
        if number and left <= 0:
            break
        order.shuffle(alive)
        each = min(_LONGEST_RUN, max(left, 0.0) / ((_ROUNDS - number) * len(alive)))
        for done, arrangement in enumerate(alive):
            try:
                rates[arrangement].append(bench.run(arrangement, each))
            except EngineError as error:
                raise ZooError(f"{plan.folder}: the model fails on {arrangement.rows} rows: {error}") from error
            plan.told((number + (done + 1) / len(alive)) / _ROUNDS)
            if number and time.monotonic() - begun > plan.seconds:
                break
        if number:
            alive = _promising(alive, rates)
    plan.told(1.0)
    return [Measured(arrangement, tuple(found)) for arrangement, found in rates.items()]


def _promising(alive: Sequence[Arrangement], rates: Mapping[Arrangement, Sequence[float]]) -> list[Arrangement]:
    """Those that may still be the best of their version."""
    medians = {one: statistics.median(rates[one]) for one in alive}
    tops = {one.version: max(medians[it] for it in alive if it.version == one.version) for one in alive}
    return [one for one in alive if medians[one] >= _HOPELESS * tops[one.version]]


def _batches_a_second(engine: Engine, batch: Tensors, seconds: float) -> float:
    begun, count = time.perf_counter(), 0
    while True:
        engine.run(batch)
        count += 1
        took = time.perf_counter() - begun
        if took >= seconds:
            return count / took


def _open(path: Path, threads: int, opened: ExitStack) -> OnnxEngine:
    try:
        engine = OnnxEngine(path, threads)
    except EngineLoadError as error:
        raise ZooError(str(error)) from error
    opened.callback(engine.close)
    return engine

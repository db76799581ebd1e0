"""What a model did since it was loaded: the counters behind ModelStatistics. Belongs to the event loop."""

import time
from dataclasses import dataclass, field

from engines.work import BatchReport, Outcome


@dataclass(slots=True)
class Tally:
    """A number of events and the seconds they took together."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one event of `seconds`."""
        self.count += 1
        self.seconds += seconds


@dataclass(slots=True)
class ModelStats:
    """Counters of one version of a model.

    `success`, `fail`: requests from arrival to answer. `queue`, `engine`: their waiting and computing. `rows`: rows
    answered. `batches`: engine runs by their rows. `last_inference`: milliseconds since 1970, 0 = never.
    """

    success: Tally = field(default_factory=Tally)
    fail: Tally = field(default_factory=Tally)
    queue: Tally = field(default_factory=Tally)
    engine: Tally = field(default_factory=Tally)
    batches: dict[int, Tally] = field(default_factory=dict)
    rows: int = 0
    last_inference: int = 0

    @property
    def executions(self) -> int:
        """Engine runs."""
        return sum(tally.count for tally in self.batches.values())

    def answered(self, outcome: Outcome) -> None:
        """Count a request that was computed."""
        batch = outcome.batch
        success, queue, engine = self.success, self.queue, self.engine
        success.count += 1
        success.seconds += time.monotonic() - outcome.queued
        queue.count += 1
        queue.seconds += outcome.waited
        engine.count += 1
        engine.seconds += batch.ended - batch.started
        self.rows += outcome.rows

    def ran(self, report: BatchReport) -> None:
        """Count an engine run."""
        timing = report.timing
        tally = self.batches.get(timing.rows)
        if tally is None:
            tally = self.batches[timing.rows] = Tally()
        tally.add(timing.ended - timing.started)
        self.last_inference = time.time_ns() // 1_000_000

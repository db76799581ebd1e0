"""Headrace's rule: the very functions that `engines.batcher` calls, and a curve that starts empty."""

from bisect import insort
from operator import attrgetter

from benchmarks.simulator.loads import Request
from benchmarks.simulator.run import Line
from engines import forecast, scheduler
from engines.curve import TimeCurve
from engines.tight import size_of


class Ours:
    """Learns the engine's curve from what runs; refuses, orders and cuts by it."""

    def __init__(self) -> None:
        self.curve = TimeCurve()

    def arrives(self, line: Line, request: Request, now: float) -> bool:
        """Refuse what would be late although the engines work without a pause."""
        request.urgency = scheduler.urgency(request.arrived, request.deadline)
        if not line.idle and self.curve.known:
            frees = [began + self.curve.seconds(sum(map(size_of, batch))) for batch, began in line.running.values()]
            ahead = sum([size_of(other) for other in line.waiting if other.urgency <= request.urgency])
            finished = forecast.finish(self.curve, size_of(request), ahead, frees, now)
            if forecast.misses_by(finished, request.deadline, now):
                return False
        insort(line.waiting, request, key=attrgetter("urgency"))
        return True

    def takes(self, line: Line, now: float) -> tuple[list[Request], list[Request], float | None]:
        """Take what the plan says."""
        running = sum(request.rows for batch, _ in line.running.values() for request in batch)
        waiting = sum(request.rows for request in line.waiting)
        share = scheduler.fair_share(waiting + running, line.engine.count)
        plan = scheduler.plan(line.waiting, line.engine.limits, now, share, self.curve)
        line.waiting[: plan.scanned] = plan.passed
        return plan.take, [*plan.expired, *plan.late], None

    def ran(self, batch: list[Request], seconds: float) -> None:
        """Learn."""
        self.curve.add(sum(map(size_of, batch)), seconds)

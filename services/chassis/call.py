"""One rpc in progress, as a servicer sees it: its deadline, its trace and the receipt it will answer with."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engines.work import BatchTiming, Outcome


@dataclass(slots=True)
class Receipt:
    """What a call cost and where its time went; measured once, shown as metadata, span attributes and metrics.

    `queue_ms`: longest wait of one of the call's items. `engine_ms`: longest batch the call took part in.
    `engine_share_ms`: the call's share of engine time, by rows. `batch_rows`: rows of the largest such batch.
    `padding_ratio`: share of that batch's rows or tokens that were padding, 0..1.
    """

    model: str
    version: str
    queue_ms: float
    engine_ms: float
    engine_share_ms: float
    batch_rows: int
    padding_ratio: float

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The receipt as response metadata: headers of a unary call, trailers of a stream."""
        return (
            ("headrace-model", f"{self.model}@{self.version}" if self.version else self.model),
            ("headrace-queue-ms", f"{self.queue_ms:.3f}"),
            ("headrace-engine-ms", f"{self.engine_ms:.3f}"),
            ("headrace-engine-share-ms", f"{self.engine_share_ms:.3f}"),
            ("headrace-batch-rows", str(self.batch_rows)),
            ("headrace-padding-ratio", f"{self.padding_ratio:.3f}"),
        )

    def merged(self, other: "Receipt") -> "Receipt":
        """This receipt with `other`, of a later item of the same call, added to it."""
        largest = self if self.batch_rows >= other.batch_rows else other
        return Receipt(
            model=other.model,
            version=other.version,
            queue_ms=max(self.queue_ms, other.queue_ms),
            engine_ms=max(self.engine_ms, other.engine_ms),
            engine_share_ms=self.engine_share_ms + other.engine_share_ms,
            batch_rows=largest.batch_rows,
            padding_ratio=largest.padding_ratio,
        )


@dataclass(slots=True)
class Call:
    """The context of one rpc.

    `method`: "package.Service/Method". `deadline`: an absolute `time.monotonic()` instant; `math.inf` on a stream whose
    caller set none. `trace` is None when unsampled: hand it to the batcher as `Work.tag`. `metadata`: the request
    headers, of which the last wins when one is repeated.
    """

    method: str
    deadline: float = math.inf
    trace: Any = None
    receipt: Receipt | None = None
    metadata: Mapping[str, str | bytes] = field(default_factory=dict)
    item_timeout: float = math.inf
    started: float = field(default_factory=time.monotonic)
    observer: Callable[["Call", Receipt, Sequence[Outcome]], None] | None = None
    # The rest belongs to rpc.py.
    task: "asyncio.Task[Any] | None" = None
    timer: asyncio.TimerHandle | None = None
    expired: bool = False
    status: str = "OK"
    reason: str = ""

    def time_remaining(self) -> float:
        """Seconds until the deadline; negative when it has passed."""
        return self.deadline - time.monotonic()

    def item_deadline(self) -> float:
        """When one item of a stream must be answered: the call's deadline, at most the default of an rpc from now."""
        return min(self.deadline, time.monotonic() + self.item_timeout)

    @property
    def traceparent(self) -> str:
        """The caller's W3C trace context, "" when there was none."""
        value = self.metadata.get("traceparent", "")
        return value if isinstance(value, str) else ""

    @property
    def trace_id(self) -> str:
        """32 hex digits, by which logs and traces are found; "" for a caller without trace context."""
        return self.traceparent[3:35]

    def record(self, model: str, version: str, outcomes: Sequence[Outcome]) -> Receipt:
        """Make the receipt of these outcomes (at least one), add it to the call's and return it alone."""
        receipt = receipt_of(model, version, outcomes)
        self.receipt = receipt if self.receipt is None else self.receipt.merged(receipt)
        if self.observer is not None:
            self.observer(self, receipt, outcomes)
        return receipt


def receipt_of(model: str, version: str, outcomes: Sequence[Outcome]) -> Receipt:
    """Measure the outcomes of one request, which may have been spread over several batches."""
    if len(outcomes) == 1:
        return _receipt_of_one(model, version, outcomes[0])
    batches: dict[int, BatchTiming] = {}
    queued = share = 0.0
    for outcome in outcomes:
        batch = outcome.batch
        batches[batch.batch_id] = batch
        queued = max(queued, outcome.waited)
        share += (batch.ended - batch.started) * outcome.rows / max(batch.rows, 1)
    largest = max(batches.values(), key=lambda batch: batch.rows)
    return Receipt(
        model=model,
        version=version,
        queue_ms=queued * 1e3,
        engine_ms=max(batch.ended - batch.started for batch in batches.values()) * 1e3,
        engine_share_ms=share * 1e3,
        batch_rows=largest.rows,
        padding_ratio=largest.padding_ratio,
    )


def _receipt_of_one(model: str, version: str, outcome: Outcome) -> Receipt:
    """The same for the usual request, in a third of the time."""
    batch = outcome.batch
    engine_ms = (batch.ended - batch.started) * 1e3
    share_ms = engine_ms * outcome.rows / max(batch.rows, 1)
    return Receipt(model, version, outcome.waited * 1e3, engine_ms, share_ms, batch.rows, batch.padding_ratio)

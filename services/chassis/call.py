"""One rpc in progress, as a servicer sees it: its deadline, its trace and the receipt it will answer with."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from engines.batcher import Outcome


@dataclass(frozen=True, slots=True)
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


@dataclass(slots=True)
class Call:
    """The context of one rpc. `deadline` is an absolute `time.monotonic()` instant; `trace` is None when unsampled."""

    method: str
    deadline: float
    trace: object | None = None
    receipt: Receipt | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    def time_remaining(self) -> float:
        """Seconds until the deadline; negative when it has passed."""
        return self.deadline - time.monotonic()

    def record(self, model: str, version: str, outcomes: Sequence[Outcome]) -> None:
        """Make the receipt from the outcomes of this call's items (at least one)."""

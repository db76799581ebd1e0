"""What a pull tells while it runs; the command draws bars from it, a log prints it, tests collect it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Stage = Literal["wait", "fetch", "convert", "write", "present", "done"]


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` of `detail` in a stage: bytes while fetching, steps while converting; both 0 where a stage has
    no measure.
    """

    model: str
    stage: Stage
    detail: str = ""
    done: int = 0
    total: int = 0


Report = Callable[[Progress], None]


def silent(_event: Progress) -> None:
    """A report that tells nobody."""

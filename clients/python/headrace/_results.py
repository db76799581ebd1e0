"""What every call answers with: its items, the model that made them, and the receipt."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, overload

from headrace._errors import HeadraceError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Model:
    """The model that answered: its name, and its version as a decimal number."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Category:
    """One label of a classifier, its score (0..1 where the model gives probabilities) and its index in the output."""

    label: str
    score: float
    index: int


@dataclass(frozen=True, slots=True)
class ClassifyResult:
    """The labels of one item, best first; or the `error` that this item alone met."""

    categories: tuple[Category, ...]
    error: HeadraceError | None = None


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """The vector of one item, of unit length; or the `error` that this item alone met.

    `token_count`: tokens read, for texts; 0 for images.
    """

    embedding: tuple[float, ...]
    token_count: int = 0
    error: HeadraceError | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where a call's time went inside the mesh.

    `queue_ms`: longest wait of one of its items. `engine_ms`: longest batch that it took part in.
    `engine_share_ms`: its share of engine time, by rows. `batch_rows`: rows of the largest such batch.
    `padding_ratio`: share of that batch that was padding, 0..1. `model`: who answered.
    """

    model: Model
    queue_ms: float
    engine_ms: float
    engine_share_ms: float
    batch_rows: int
    padding_ratio: float

    @classmethod
    def from_metadata(cls, metadata: Iterable[tuple[str, str | bytes]]) -> "Receipt | None":
        """Read a call's initial metadata; None when it carries no whole receipt."""
        found = {key: value for key, value in metadata if key.startswith("headrace-") and isinstance(value, str)}
        try:
            name, _, version = found["headrace-model"].rpartition("@")
            return cls(
                model=Model(name, version),
                queue_ms=float(found["headrace-queue-ms"]),
                engine_ms=float(found["headrace-engine-ms"]),
                engine_share_ms=float(found["headrace-engine-share-ms"]),
                batch_rows=int(found["headrace-batch-rows"]),
                padding_ratio=float(found["headrace-padding-ratio"]),
            )
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True, slots=True)
class Results(Sequence[T], Generic[T]):
    """The items of an answer, in the order of the request; behaves as a sequence of them.

    An item that failed alone carries its `error`; the call as a whole raised nothing.
    """

    items: tuple[T, ...]
    model: Model
    receipt: Receipt | None

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

"""Which shapes a plan's optimisation profiles cover. Pure: shapes in, shapes out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from engines.base import TensorSpec
from engines.tensorrt.libraries import TensorRTError
from engines.tensorrt.plans import Profile

Shapes = dict[str, tuple[int, ...]]


def buckets_for(max_rows: int) -> tuple[int, ...]:
    """Powers of four up to `max_rows`, and `max_rows` itself: 16 -> (1, 4, 16)."""
    powers = [4**exponent for exponent in range(16) if 4**exponent < max_rows]
    return (*powers, max_rows)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Sizes of one dimension that one profile covers, both ends included; kernels are tuned for the greatest."""

    least: int
    greatest: int


def stretches(greatest: Sequence[int], least: int = 1) -> tuple[Stretch, ...]:
    """From `least` to the first size, then from just above each to the next: (4, 16) -> 1..4, 5..16."""
    starts = (least, *(size + 1 for size in greatest))
    return tuple(Stretch(start, size) for start, size in zip(starts, greatest, strict=False))


def make(
    inputs: Sequence[TensorSpec], buckets: Sequence[int], dimensions: Mapping[str, Sequence[Stretch]]
) -> tuple[Profile, ...]:
    """One profile for each combination of a bucket of rows (axis 0) and a stretch of each other open dimension.

    `buckets`: greatest row counts, rising; together they cover every count from 1. Nothing where every size is fixed.
    Raises TensorRTError naming a dimension that `dimensions` does not bound.
    """
    if not buckets or list(buckets) != sorted(set(buckets)) or buckets[0] < 1:
        raise TensorRTError(f"buckets {list(buckets)} must be positive and rising, such as 1,4,16")
    if all(isinstance(size, int) for spec in inputs for size in spec.shape):
        return ()
    names = list(dict.fromkeys(size for spec in inputs for size in spec.shape[1:] if isinstance(size, str)))
    for name in names:
        if name not in dimensions:
            owner = next(spec.name for spec in inputs if name in spec.shape[1:])
            raise TensorRTError(
                f"input '{owner}' has the open dimension '{name}': bound it with --dim {name}=N, or in the manifest's"
                f" [dimensions.{name}]"
            )
    has_rows = any(isinstance(spec.shape[0], str) for spec in inputs if spec.shape)
    rows = stretches(buckets) if has_rows else stretches(buckets[:1])
    made: list[Profile] = []
    for count, *sizes in product(rows, *(dimensions[name] for name in names)):
        stretch_of = dict(zip(names, sizes, strict=True))
        least = _shapes(inputs, count.least, {name: one.least for name, one in stretch_of.items()})
        most = _shapes(inputs, count.greatest, {name: one.greatest for name, one in stretch_of.items()})
        made.append(Profile(least=least, best=most, greatest=most))
    return tuple(made)


def covering(profiles: Sequence[Profile], shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The index of the first profile that covers these input shapes; None where none does."""
    for index, profile in enumerate(profiles):
        if all(
            all(
                low <= size <= high
                for low, size, high in zip(profile.least[name], shape, profile.greatest[name], strict=True)
            )
            for name, shape in shapes.items()
        ):
            return index
    return None


def _shapes(inputs: Sequence[TensorSpec], rows: int, sizes: Mapping[str, int]) -> Shapes:
    return {
        spec.name: tuple(
            size if isinstance(size, int) else rows if axis == 0 else sizes[size]
            for axis, size in enumerate(spec.shape)
        )
        for spec in inputs
    }

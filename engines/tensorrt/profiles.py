"""Which shapes a plan's optimisation profiles cover. Pure: shapes in, shapes out."""

from collections.abc import Mapping, Sequence

from engines.base import TensorSpec
from engines.tensorrt.libraries import TensorRTError
from engines.tensorrt.plans import Profile

Shapes = dict[str, tuple[int, ...]]


def buckets_for(max_rows: int) -> tuple[int, ...]:
    """Powers of four up to `max_rows`, and `max_rows` itself: 16 -> (1, 4, 16)."""
    powers = [4**exponent for exponent in range(16) if 4**exponent < max_rows]
    return (*powers, max_rows)


def make(inputs: Sequence[TensorSpec], buckets: Sequence[int], dimensions: Mapping[str, int]) -> tuple[Profile, ...]:
    """One profile a bucket, which covers the row counts from just above the previous bucket to its own.

    `dimensions` gives the greatest size of each symbolic dimension other than the rows (axis 0); the least is 1.
    Nothing where every size is fixed. Raises TensorRTError.
    """
    if not buckets or list(buckets) != sorted(set(buckets)) or buckets[0] < 1:
        raise TensorRTError(f"buckets {list(buckets)} must be positive and rising, such as 1,4,16")
    if all(isinstance(size, int) for spec in inputs for size in spec.shape):
        return ()
    for spec in inputs:
        for size in spec.shape[1:]:
            if isinstance(size, str) and size not in dimensions:
                raise TensorRTError(
                    f"input '{spec.name}' has the open dimension '{size}': bound it with --dim {size}=N"
                )
    ones = dict.fromkeys(dimensions, 1)
    made: list[Profile] = []
    for previous, bucket in zip((0, *buckets), buckets, strict=False):
        most = _shapes(inputs, bucket, dimensions)
        made.append(Profile(least=_shapes(inputs, previous + 1, ones), best=most, greatest=most))
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

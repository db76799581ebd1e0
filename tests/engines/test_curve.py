import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from engines.curve import TimeCurve


def learned(fixed: float, per_row: float, sizes: list[int]) -> TimeCurve:
    curve = TimeCurve()
    for size in sizes:
        curve.add(size, fixed + per_row * size)
    return curve


def test_nothing_is_known_before_some_runs() -> None:
    curve = learned(0.01, 0.001, [4] * 15)
    assert not curve.known
    assert curve.seconds(4) == 0.0


def test_an_affine_cost_is_found_between_and_beyond_what_ran() -> None:
    curve = learned(0.004, 0.00025, [2, 8, 32] * 16)
    assert curve.known
    for size in (1, 2, 5, 8, 20, 32):
        assert abs(curve.seconds(size) - (0.004 + 0.00025 * size)) < 1e-9
    assert curve.seconds(64) == 2 * curve.seconds(32)
    assert curve.best_size == 32
    assert abs(curve.unit_seconds - curve.seconds(32) / 32) < 1e-12


def test_one_size_alone_predicts_in_proportion() -> None:
    curve = learned(0.0, 0.001, [8] * 16)
    assert abs(curve.seconds(4) - 0.004) < 1e-9
    assert abs(curve.seconds(16) - 0.016) < 1e-9


def test_a_hiccup_moves_little_and_a_lasting_change_is_learned() -> None:
    curve = learned(0.0, 0.001, [8] * 40)
    curve.add(8, 5.0)
    for _ in range(7):
        curve.add(8, 0.008)
    assert curve.seconds(8) < 0.0088
    for _ in range(80):
        curve.add(8, 0.032)
    assert abs(curve.seconds(8) - 0.032) < 0.001


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(1e-6, 10)), min_size=16, max_size=100))
def test_a_larger_batch_never_takes_less_time(runs: list[tuple[int, float]]) -> None:
    curve = TimeCurve()
    for size, seconds in runs:
        curve.add(size, seconds)
    predicted = [curve.seconds(size) for size in range(1, 6000, 7)]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(predicted))
    assert predicted[0] >= -1e-9


def test_noise_is_averaged() -> None:
    random_ = random.Random(5)
    curve = TimeCurve()
    for _ in range(400):
        size = random_.randint(1, 32)
        curve.add(size, (0.004 + 0.00025 * size) * random_.uniform(0.9, 1.1))
    for size in (2, 8, 16, 30):
        assert abs(curve.seconds(size) / (0.004 + 0.00025 * size) - 1) < 0.1

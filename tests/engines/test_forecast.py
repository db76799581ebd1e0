import math

import pytest

from engines import forecast
from engines.curve import TimeCurve
from engines.pace import Pace


@pytest.fixture
def curve() -> TimeCurve:
    """10 ms a batch of 8, 6 ms a single one."""
    known = TimeCurve()
    for _ in range(8):
        known.add(1, 0.0065)
        known.add(8, 0.010)
    return known


def test_a_work_behind_full_batches_finishes_after_them(curve: TimeCurve) -> None:
    alone = forecast.finish(curve, 1, 0, [], 100.0)
    assert alone == pytest.approx(100.0065)
    behind = forecast.finish(curve, 1, 16, [100.004], 100.0)
    assert behind == pytest.approx(100.004 + 2 * 0.010 + 0.0065)


def test_several_engines_share_what_is_ahead(curve: TimeCurve) -> None:
    one = forecast.finish(curve, 1, 32, [100.0], 100.0)
    two = forecast.finish(curve, 1, 32, [100.0, 100.0], 100.0)
    assert one - two == pytest.approx(0.02)


def test_a_work_of_several_batches_takes_several(curve: TimeCurve) -> None:
    assert forecast.finish(curve, 24, 0, [100.0], 100.0) == pytest.approx(100.03)
    assert forecast.finish(curve, 24, 0, [100.0, 100.0], 100.0) == pytest.approx(100.02)


def test_a_late_engine_is_expected_at_once(curve: TimeCurve) -> None:
    assert forecast.finish(curve, 1, 0, [90.0], 100.0) == forecast.finish(curve, 1, 0, [], 100.0)


def test_lateness_counts_with_some_to_spare() -> None:
    assert forecast.misses_by(100.010, 100.012, 100.0) == 0.0
    assert forecast.misses_by(100.010, 100.011, 100.0) == pytest.approx(0.0005)


def test_hopeless_is_what_not_even_an_idle_engine_could_do(curve: TimeCurve) -> None:
    assert forecast.hopeless(curve, 8, 100.005, 100.0)
    assert not forecast.hopeless(curve, 8, 100.0095, 100.0)


def test_nothing_is_refused_by_an_unknown_curve_or_without_a_deadline() -> None:
    pace = Pace(rows_are_alike=True)
    pace.learn(8, 8, 10.0, 10.0)
    pace.begins("engine", 8, 100.0)
    assert pace.misses_by(8, 1000, 100.1, 100.0) == 0.0
    for _ in range(16):
        pace.learn(8, 8, 10.0, 10.0)
    assert pace.misses_by(8, 1000, 100.1, 100.0) > 1000
    assert pace.misses_by(8, 1000, math.inf, 100.0) == 0.0

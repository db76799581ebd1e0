import pytest

from gateway.sampling import SampleRatio


def test_quiet_traffic_is_sampled_whole() -> None:
    policy = SampleRatio(per_second=20)
    assert not any(policy.observe(10, 0.5) for _ in range(100))
    assert policy.ratio == 1.0


def test_a_burst_lowers_the_ratio_at_once_below_the_bound() -> None:
    policy = SampleRatio(per_second=20)
    assert policy.observe(1000, 0.5)
    assert policy.ratio == pytest.approx(0.008)
    assert policy.ratio * 2000 <= 20


def test_small_changes_of_rate_push_nothing() -> None:
    policy = SampleRatio(per_second=20)
    policy.observe(1000, 0.5)
    assert not any(policy.observe(count, 0.5) for count in (900, 1100, 1200, 800, 1000) * 20)


def test_it_recovers_slowly_and_a_short_pause_changes_nothing() -> None:
    policy = SampleRatio(per_second=20)
    policy.observe(1000, 0.5)
    assert not any(policy.observe(0, 0.5) for _ in range(39))
    assert policy.observe(0, 0.5)
    assert policy.ratio == pytest.approx(0.016)
    for _ in range(40 * 8):
        policy.observe(0, 0.5)
    assert policy.ratio == 1.0


def test_a_bound_of_zero_samples_nothing_of_its_own() -> None:
    policy = SampleRatio(per_second=0)
    assert policy.ratio == 0.0
    assert not policy.observe(1000, 1.0)


def test_the_bound_holds_for_any_steady_rate() -> None:
    for rate in (1, 19, 21, 25, 30, 100, 5000, 100_000):
        policy = SampleRatio(per_second=20)
        for _ in range(500):
            policy.observe(rate, 1.0)
        assert policy.ratio * rate <= 20 * 1.35, rate

"""The simulator: its arrivals, its invariants, and the policy under it."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulator import loads, rivals
from benchmarks.simulator.bound import most_rows_in_time
from benchmarks.simulator.engine import EngineModel
from benchmarks.simulator.loads import Kind, Request
from benchmarks.simulator.ours import Ours
from benchmarks.simulator.report import measure, scenario_table
from benchmarks.simulator.run import Rule, simulate
from benchmarks.simulator.suite import GPU, RULES, SUITE, Make, Scenario

MAKES: list[Make] = [make for makes in RULES.values() for make in makes.values()]

engines = st.builds(
    EngineModel,
    fixed=st.floats(0.0005, 0.01),
    per_unit=st.floats(1e-5, 2e-3),
    max_rows=st.integers(4, 32),
    max_tokens=st.sampled_from([None, 256]),
    count=st.integers(1, 3),
    noise=st.sampled_from([0.0, 0.2]),
)


@st.composite
def arrivals(draw: st.DrawFn) -> list[Request]:
    """Up to 80 works within 0.2 s, of 1 to 4 rows and two shapes or lengths, allowed 1 to 200 ms."""
    instants = sorted(draw(st.lists(st.floats(0, 0.2), max_size=80)))
    unit = draw(st.sampled_from([0, 16]))
    requests = []
    for number, at in enumerate(instants):
        rows, group = draw(st.integers(1, 4)), draw(st.integers(1, 2))
        requests.append(Request(number, at, at + draw(st.floats(0.001, 0.2)), rows, rows * unit * group, group))
    return requests


@pytest.mark.parametrize("draw", [loads.poisson, loads.bursty])
def test_arrivals_come_in_order_at_the_rate_that_was_asked_for(draw: loads.Draw) -> None:
    instants = list(draw(50.0, 2000.0, random.Random(3)))
    assert instants == sorted(instants)
    assert abs(len(instants) / 2000 - 50) < 5
    assert instants == list(draw(50.0, 2000.0, random.Random(3)))


def test_bursts_are_burstier_than_poisson() -> None:
    def spread(draw: loads.Draw) -> float:
        counts = [0] * 400
        for at in draw(500.0, 20.0, random.Random(3)):
            counts[int(at * 20)] += 1
        mean = sum(counts) / len(counts)
        return sum((count - mean) ** 2 for count in counts) / len(counts) / mean

    assert spread(loads.poisson) < 1.5
    assert spread(loads.bursty) > 5


def test_a_trace_is_read_and_replayed(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrived_s,allowed_s,rows,length\n0.5,0.1,2,32\n0.1,0.2,,\n")
    first, second = loads.recorded(trace)
    assert (first.arrived, first.deadline, first.rows, first.tokens) == (0.1, pytest.approx(0.3), 1, 0)
    assert (second.arrived, second.rows, second.tokens, second.group) == (0.5, 2, 64, 32)
    assert simulate([first, second], GPU, Ours()).in_time == 3


@pytest.mark.parametrize("make", MAKES)
def test_nothing_is_lost_or_answered_twice_and_the_bound_holds(make: Make) -> None:
    scenario = Scenario(
        "short", GPU, 1.3, (Kind(share=0.5, allowed=0.03), Kind(share=0.5, allowed=0.1, rows=3)), seconds=0.5
    )
    check(scenario.requests(), scenario.engine, make(scenario))


@given(arrivals(), engines, st.sampled_from(MAKES))
@settings(max_examples=150, deadline=None)
def test_no_rule_beats_the_bound_on_any_arrivals(requests: list[Request], engine: EngineModel, make: Make) -> None:
    check(requests, engine, make(SUITE[0]))


def check(requests: list[Request], engine: EngineModel, rule: Rule) -> None:
    result = simulate(requests, engine, rule)
    assert len(result.answered) == len(set(result.answered))
    assert result.offered == sum(request.rows for request in requests)
    assert result.offered == result.in_time + result.late + result.refused + result.dropped
    assert result.in_time <= most_rows_in_time(requests, engine) + 1e-6


def test_the_same_seed_gives_the_same_run() -> None:
    requests = SUITE[3].requests()
    assert [request.arrived for request in requests] == [request.arrived for request in SUITE[3].requests()]
    assert simulate(requests, GPU, Ours()) == simulate(requests, GPU, Ours())


def test_a_bound_that_can_be_computed_by_hand() -> None:
    engine = EngineModel(fixed=0.01, per_unit=0.0, max_rows=2)
    together = [Request(n, 0.0, 0.01) for n in range(3)]
    assert most_rows_in_time(together, engine) == pytest.approx(2.0)
    assert most_rows_in_time([Request(0, 0.0, 0.005)], engine) == 0.0
    assert most_rows_in_time([], engine) == 0.0


def test_works_without_a_deadline_outlive_a_flood_of_urgent_ones() -> None:
    patient = Request(100_000, 0.5, float("inf"))
    flood = loads.works(loads.poisson(8000, 4.0, random.Random(1)), [Kind(allowed=0.05)], random.Random(2))
    result = simulate(sorted([*flood, patient], key=lambda one: one.arrived), GPU, Ours())
    assert patient.number in result.answered
    later = result.answered[result.answered.index(patient.number) + 1 :]
    assert len(later) > 1000


def test_overload_leaves_the_goodput_of_full_load() -> None:
    def rate(load: float) -> int:
        scenario = Scenario("overload", GPU, load, (Kind(allowed=0.05),), seconds=2)
        return simulate(scenario.requests(), GPU, Ours()).in_time

    assert rate(2.0) > 0.9 * rate(0.9)


def test_a_full_batch_goes_without_the_delay() -> None:
    rule = rivals.FixedDelay(1.0)
    result = simulate([Request(n, 0.0, 0.5) for n in range(33)], GPU, rule)
    assert (result.in_time, result.dropped, result.batches) == (32, 1, 1)


def test_the_table_shows_every_scenario() -> None:
    short = [Scenario("one", GPU, 0.5, (Kind(),), seconds=0.2), Scenario("two", GPU, 2.0, (Kind(),), seconds=0.2)]
    figures = measure(short)
    assert scenario_table(figures).row_count == 2
    assert all(0 <= part <= 1 + 1e-9 for makes in figures.parts.values() for parts in makes.values() for part in parts)

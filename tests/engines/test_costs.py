from engines.costs import CostCurve


def learn(curve: CostCurve, row_seconds: dict[int, float], runs: int) -> list[int]:
    """Serve a long queue with engines of such costs (by batch rows); return the batch sizes chosen on the way."""
    chosen = []
    for _ in range(runs):
        rows = curve.rows_worth_running(16)
        curve.add(rows, rows * row_seconds[rows], rows * row_seconds[rows])
        chosen.append(rows)
    return chosen


def test_before_anything_is_known_batches_may_be_full() -> None:
    assert CostCurve().rows_worth_running(16) == 16


def test_where_large_batches_cost_no_more_they_stay_large() -> None:
    chosen = learn(CostCurve(), {2: 2.2e-3, 4: 2e-3, 8: 1.5e-3, 16: 1e-3}, 400)
    assert chosen[100:].count(16) > 0.95 * 300


def test_where_rows_cost_more_in_a_large_batch_batches_get_smaller() -> None:
    chosen = learn(CostCurve(), {2: 5.0e-3, 4: 5.0e-3, 8: 5.2e-3, 16: 6.5e-3}, 400)
    assert chosen[100:].count(8) > 0.95 * 300


def test_few_rows_are_always_allowed() -> None:
    curve = CostCurve()
    for _ in range(50):
        for rows in (1, 2, 4, 8):
            curve.add(rows, rows * rows * 1e-3, rows * rows * 1e-3)
    assert curve.rows_worth_running(8) == 2
    assert curve.rows_worth_running(1) == 1


def test_a_change_of_costs_is_noticed() -> None:
    curve = CostCurve()
    learn(curve, {2: 5e-3, 4: 5e-3, 8: 6e-3, 16: 7e-3}, 300)
    chosen = learn(curve, {2: 5e-3, 4: 5e-3, 8: 3e-3, 16: 2e-3}, 6000)
    assert chosen[-64:].count(16) > 60


def test_the_seconds_of_a_row_follow_the_runs() -> None:
    curve = CostCurve()
    curve.add(4, 0.4, 0.4)
    assert curve.row_seconds == 0.1
    for _ in range(200):
        curve.add(4, 0.8, 0.8)
    assert abs(curve.row_seconds - 0.2) < 1e-6

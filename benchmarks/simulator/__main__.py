"""`python -m benchmarks.simulator`: the suite, or one recorded trace, under every rule."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.simulator import loads
from benchmarks.simulator.bound import most_rows_in_time
from benchmarks.simulator.engine import EngineModel
from benchmarks.simulator.report import measure, rule_table, scenario_table
from benchmarks.simulator.run import simulate
from benchmarks.simulator.suite import RULES, Scenario


def trace_table(path: Path, engine: EngineModel) -> Table:
    """Show every rule at every setting on a recorded trace."""
    requests = loads.recorded(path)
    allowed = sorted(request.deadline - request.arrived for request in requests)[len(requests) // 2]
    scenario = Scenario(path.name, engine, 0.0, (loads.Kind(allowed=allowed),))
    bound = most_rows_in_time(requests, engine)
    table = Table("rule", "setting", title=f"{path.name}: {len(requests)} works, the bound is {bound:.0f} rows in time")
    for name in ("in time", "part of the bound", "late", "refused or given up", "batches"):
        table.add_column(name, justify="right")
    for rule, settings in RULES.items():
        for name, make in settings.items():
            result = simulate(requests, engine, make(scenario))
            counts = (result.late, result.refused + result.dropped, result.batches)
            part = f"{result.in_time / bound:.3f}" if bound else "-"
            table.add_row(rule, name, str(result.in_time), part, *map(str, counts))
    return table


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulator", description=__doc__)
    parser.add_argument("--trace", type=Path, help="a CSV file: arrived_s, allowed_s and, if they matter, rows, length")
    parser.add_argument("--fixed-ms", type=float, default=4.0, help="with --trace: what any batch takes")
    parser.add_argument("--unit-ms", type=float, default=0.25, help="with --trace: what a row, or a token, takes")
    parser.add_argument("--max-rows", type=int, default=32, help="with --trace: rows of a batch")
    parser.add_argument("--max-tokens", type=int, help="with --trace: tokens of a batch")
    parser.add_argument("--engines", type=int, default=1, help="with --trace: how many engines")
    options = parser.parse_args()
    console = Console(width=120)
    if options.trace is not None:
        fixed, unit = options.fixed_ms / 1000, options.unit_ms / 1000
        engine = EngineModel(fixed, unit, options.max_rows, options.max_tokens, options.engines)
        console.print(trace_table(options.trace, engine))
        return
    figures = measure()
    console.print(scenario_table(figures))
    console.print(rule_table(figures))


if __name__ == "__main__":
    main()

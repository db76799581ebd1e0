"""The suite's figures, and the tables that show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rich.table import Table

from benchmarks.simulator.bound import most_rows_in_time
from benchmarks.simulator.loads import Kind
from benchmarks.simulator.run import simulate
from benchmarks.simulator.suite import GPU, RULES, SUITE, Make, Scenario

OURS: Final = "headrace"
LOADS: Final = (0.5, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0)


@dataclass(frozen=True, slots=True)
class Figures:
    """`parts`: rule -> setting -> the part of the bound answered in time, for each scenario in order."""

    scenarios: Sequence[Scenario]
    bounds: Sequence[float]
    offered: Sequence[int]
    parts: Mapping[str, Mapping[str, Sequence[float]]]

    def setting(self, rule: str) -> str:
        """Return the setting that stands for the rule: the one with the best worst case, then the best sum."""
        settings = self.parts[rule]
        return max(settings, key=lambda name: (min(settings[name]), sum(settings[name])))

    def of(self, rule: str) -> Sequence[float]:
        """Return the parts at that setting."""
        return self.parts[rule][self.setting(rule)]

    def best_tuned(self, place: int) -> float:
        """Return the best part that any rival at any setting reaches in one scenario."""
        rivals = (values for rule, settings in self.parts.items() if rule != OURS for values in settings.values())
        return max(values[place] for values in rivals)


def measure(scenarios: Sequence[Scenario] = SUITE, rules: Mapping[str, Mapping[str, Make]] = RULES) -> Figures:
    """Run every rule at every setting on every scenario."""
    requests = [scenario.requests() for scenario in scenarios]
    bounds = [
        most_rows_in_time(arrivals, scenario.engine) for scenario, arrivals in zip(scenarios, requests, strict=True)
    ]
    parts = {
        rule: {
            name: [
                simulate(arrivals, scenario.engine, make(scenario)).in_time / bound
                for scenario, arrivals, bound in zip(scenarios, requests, bounds, strict=True)
            ]
            for name, make in settings.items()
        }
        for rule, settings in rules.items()
    }
    return Figures(scenarios, bounds, [sum(one.rows for one in arrivals) for arrivals in requests], parts)


def overload(rule: Make) -> list[float]:
    """Return the rows a second answered in time at each of `LOADS`."""
    rates = []
    for load in LOADS:
        scenario = replace(Scenario("overload", GPU, load, (Kind(allowed=0.05),)), load=load)
        rates.append(simulate(scenario.requests(), scenario.engine, rule(scenario)).in_time / scenario.seconds)
    return rates


def scenario_table(figures: Figures) -> Table:
    """Show each scenario's goodput as a part of the bound, every rule at its one setting."""
    table = Table("scenario", title="rows answered in time, as a part of the bound")
    for name in ("offered/bound", *figures.parts, "ours/best tuned"):
        table.add_column(name, justify="right")
    for place, scenario in enumerate(figures.scenarios):
        row = [f"{figures.offered[place] / figures.bounds[place]:.2f}"]
        row += [f"{figures.of(rule)[place]:.3f}" for rule in figures.parts]
        row += [f"{figures.of(OURS)[place] / figures.best_tuned(place):.2f}"]
        table.add_row(scenario.name, *row)
    return table


def rule_table(figures: Figures) -> Table:
    """Show each rule's worst case and mean over the suite, and what is left of its peak at twice the capacity."""
    table = Table("rule", "its one setting", title="over the whole suite")
    for name in ("worst case", "mean", "ours/its worst case", "at twice the capacity/its peak"):
        table.add_column(name, justify="right")
    ours = min(figures.of(OURS))
    for rule in figures.parts:
        worst, mean = min(figures.of(rule)), sum(figures.of(rule)) / len(figures.scenarios)
        rates = overload(RULES[rule][figures.setting(rule)])
        row = [f"{worst:.3f}", f"{mean:.3f}", f"{ours / worst:.2f}", f"{rates[-1] / max(rates):.2f}"]
        table.add_row(rule, figures.setting(rule), *row)
    return table

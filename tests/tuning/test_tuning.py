"""Tuning with real, tiny networks on the real ONNX Runtime: what is measured, kept and used, and what is refused."""

import os
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner, Result

from cli import tune_view
from cli.main import app
from engines.onnx import OnnxEngine
from engines.repository import Repository
from engines.tuning import machine, record
from engines.tuning.measure import Arrangement, Measured, best, layouts, row_counts

MANIFEST = 'name = "mixer"\nservice = "vision"\ntasks = ["tensor"]\n[batching]\nmax_rows = 4\n'


def headrace(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result) -> str:
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def write_mixer(path: Path, shape: tuple[int | str, ...] = ("batch", "length", 64)) -> None:
    """Each of `length` vectors times a matrix."""
    weights = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "mixer", [x], [y], [numpy_helper.from_array(weights, "w")])
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_mixer(tmp_path / "mixer" / "1" / "model.onnx")
    (tmp_path / "mixer" / "model.toml").write_text(MANIFEST + "[dimensions]\nlength = { greatest = [32] }\n")
    return tmp_path


def tuned(models: Path, *flags: object) -> Result:
    return headrace("tune", "mixer", "--models", models, "--seconds", "0.4", *flags)


def rewrite(models: Path, **changes: object) -> None:
    """Keep a tuning in which these figures differ, as if it had been measured so."""
    folder = models / "mixer" / "1"
    found = record.valid(folder)
    assert found is not None
    record.write(folder, found.model_copy(update=changes))


def engines(models: Path, cores: int) -> tuple[int, bool, bool]:
    """How many engines are opened, whether each computes in its caller's thread, whether the reason says tuned."""
    (entry,) = Repository(models).scan()
    loaded = entry.load(cores=cores)
    first = loaded.engines[0]
    assert isinstance(first, OnnxEngine)
    return len(loaded.engines), first.computes_in_caller, "tuned for this machine" in loaded.reason


def test_what_is_measured_is_kept_and_listed(models: Path) -> None:
    cores = machine.cores()
    result = tuned(models, "--cores", cores)
    assert result.exit_code == 0, result.output
    head, *lines = [line.split("\t") for line in result.stdout.splitlines() if "\t" in line]
    assert head[:3] == ["VERSION", "PRECISION", "ENGINES x THREADS"]
    assert len(lines) == len(layouts(cores)) * 3, "each layout at 1, 2 and 4 rows"
    assert all(float(line[4]) > 0 for line in lines)
    (kept,) = [line for line in lines if line[-1].endswith("<- kept")]
    found = record.valid(models / "mixer" / "1")
    assert found is not None
    assert (f"{found.instances} x {found.threads}", str(found.rows), found.cores) == (kept[2], kept[3], cores)
    assert "ready, tuned" in headrace("models", "list", "--models", models).stdout


def test_auto_follows_the_tuning_on_as_many_cores_only(models: Path) -> None:
    assert tuned(models, "--cores", 1).exit_code == 0
    rewrite(models, cores=3, instances=1, threads=3)
    assert engines(models, cores=3) == (1, False, True)
    assert engines(models, cores=2) == (2, True, False)


@pytest.mark.parametrize("change", [{"machine": "another CPU, 2 cores"}, {"model_bytes": 5}])
def test_another_machine_or_another_file_has_the_default(models: Path, change: dict[str, object]) -> None:
    assert tuned(models, "--cores", 1).exit_code == 0
    rewrite(models, cores=2, instances=1, threads=2, **change)
    assert engines(models, cores=2) == (2, True, False)
    assert "tuned" not in headrace("models", "list", "--models", models).stdout


@pytest.mark.parametrize("text", ["", "machine = 3\n", "nonsense", "instances = 0"])
def test_a_damaged_tuning_is_none(models: Path, text: str) -> None:
    (models / "mixer" / "1" / "tuning.toml").write_text(text)
    assert engines(models, cores=2) == (2, True, False)


@pytest.mark.parametrize(("fixed", "count", "in_caller"), [("count = 2", 2, True), ("threads = 2", 1, False)])
def test_what_the_manifest_says_wins(models: Path, fixed: str, count: int, in_caller: bool) -> None:
    assert tuned(models, "--cores", 1).exit_code == 0
    rewrite(models, cores=2, instances=5, threads=1)
    manifest = models / "mixer" / "model.toml"
    manifest.write_text(manifest.read_text() + f"[instances]\n{fixed}\n")
    assert engines(models, cores=2) == (count, in_caller, False)
    assert "which wins" in tuned(models, "--cores", 1).stdout


def test_every_version_is_compared(models: Path) -> None:
    write_mixer(models / "mixer" / "2" / "model.onnx")
    result = tuned(models, "--cores", 1)
    assert result.exit_code == 0, result.output
    assert all(record.valid(models / "mixer" / version) for version in "12")
    write_mixer(models / "mixer" / "3" / "model.onnx")
    assert headrace("tune", "mixer@3", "--models", models, "--seconds", 0.2, "--cores", 1).exit_code == 0


def test_what_cannot_be_tuned_is_one_line(models: Path) -> None:
    assert "no model 'mixed'" in refused(headrace("tune", "mixed", "--models", models))
    assert "has no version '7'" in refused(headrace("tune", "mixer@7", "--models", models))
    assert "--seconds 0" in refused(headrace("tune", "mixer", "--models", models, "--seconds", 0))
    assert "this process may use 1 to" in refused(tuned(models, "--cores", 4096))
    assert "cannot be read as a model folder" in refused(headrace("tune", "mixer", "--models", models / "none"))
    (models / "mixer" / "1" / "model.onnx").write_bytes(b"garbage")
    assert "cannot load it" in refused(tuned(models))
    (models / "mixer" / "1" / "model.onnx").unlink()
    assert "there is no such file" in refused(tuned(models))
    (models / "mixer" / "model.toml").write_text("name = 3")
    assert "model.toml" in refused(tuned(models))


def test_one_core_and_rows_that_cannot_be_batched_leave_nothing_to_tune(models: Path) -> None:
    write_mixer(models / "mixer" / "1" / "model.onnx", (2, 8, 64))
    assert "nothing to tune" in refused(tuned(models, "--cores", 1))


def test_inputs_that_no_size_fits_ask_for_the_dimension(models: Path) -> None:
    folder = models / "mixer"
    (folder / "model.toml").write_text(MANIFEST)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length"])
    only_sevens = [
        helper.make_node("Split", ["x", "parts"], ["a", "b"], axis=1),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 7])
    parts = numpy_helper.from_array(np.array([7, 7], np.int64), "parts")
    graph = helper.make_graph(only_sevens, "sevens", [x], [y], [parts])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "1" / "model.onnx"))
    assert "[dimensions]" in refused(tuned(models))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said_first(models: Path) -> None:
    folder = models / "mixer" / "1"
    folder.chmod(0o500)
    try:
        assert "cannot write" in refused(tuned(models))
    finally:
        folder.chmod(0o700)


def test_a_file_that_cannot_be_replaced_is_one_line(models: Path) -> None:
    (models / "mixer" / "1" / "tuning.toml").mkdir()
    assert "cannot write" in refused(tuned(models))
    assert [path.name for path in sorted((models / "mixer" / "1").iterdir())] == ["model.onnx", "tuning.toml"]


def test_what_other_processes_take_is_seen() -> None:
    (all_before, own_before), begun = machine.busy(), time.monotonic()
    while time.monotonic() - begun < 0.3:
        pass
    all_after, own_after = machine.busy()
    assert own_after > own_before
    assert all_after - all_before >= own_after - own_before - 0.05, "own work is part of all"


def test_layouts_fill_the_cores() -> None:
    assert layouts(1) == [(1, 1)]
    assert layouts(2) == [(2, 1), (1, 2)]
    assert layouts(6) == [(6, 1), (3, 2), (1, 4), (1, 6)]
    assert row_counts(12) == [1, 2, 4, 8, 12]


def test_of_equals_the_smallest_batch_is_best() -> None:
    rates = {(1, 16): 98.0, (1, 4): 100.0, (2, 4): 102.0, (2, 1): 80.0}
    measured = [Measured(Arrangement(1, n, 1, rows), (rate,)) for (n, rows), rate in rates.items()]
    assert best(measured).arrangement == Arrangement(1, 1, 1, 4)
    assert best(measured[2:]).arrangement == Arrangement(1, 2, 1, 4)


def test_the_plot_shows_every_point_at_its_height() -> None:
    lines = tune_view.plot({"2 x 1": {1: 90.0, 2: 45.0}, "1 x 2": {1: 90.0, 2: 0.0}})
    assert lines[0].endswith("|    ox")
    assert lines[9].endswith("|            x")
    assert [line for line in lines if line.endswith("            o")], "half way"
    assert lines[-2:] == ["         o  2 x 1", "         x  1 x 2"]

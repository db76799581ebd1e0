from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner, Result

from cli.engines import app as engines_app
from cli.models import app as models_app
from engines.repository import Repository
from engines.tensorrt.libraries import LIBRARIES, installed

needs_rtx = pytest.mark.skipif(not installed(LIBRARIES["tensorrt-rtx"]), reason="needs tensorrt-rtx")


def models(*arguments: object) -> Result:
    return CliRunner().invoke(models_app, [str(argument) for argument in arguments])


def engines(*arguments: object) -> Result:
    return CliRunner().invoke(engines_app, [str(argument) for argument in arguments])


def refused(result: Result) -> str:
    """The one line on standard error of a command that failed as it should."""
    assert result.exit_code == 1, result.output
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    assert models("pull", "double", "--models", folder).exit_code == 0
    return folder


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """A user's own classifier: mean colour, then four scores."""
    weights = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 64, 64])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, "birds", [image], [scores], [numpy_helper.from_array(weights, "weights")])
    path = tmp_path / "birds.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    (tmp_path / "birds.txt").write_text("robin\nwren\nheron\nkite\n")
    return path


def test_pull_twice_check_and_list(repository: Path) -> None:
    assert "double: already here" in models("pull", "double", "--models", repository).stdout
    assert "double: ok, greatest error 0" in models("check", "--models", repository).stdout
    lines = models("list", "--models", repository).stdout.splitlines()
    rows = {line.split("\t")[0]: line.split("\t") for line in lines}
    assert rows["double"][1:4] == ["1", "vision", "tensor"]
    assert rows["double"][6] == "ready"
    assert rows["efficientnet_lite0"][6:8] == ["not pulled", "headrace models pull NAME"]


def test_the_settings_name_the_repository_and_the_models(tmp_path: Path) -> None:
    config = tmp_path / "headrace.toml"
    config.write_text('[models]\ndirectory = "mine"\npull = ["double"]\n')
    assert models("pull", "--config", config).exit_code == 0
    assert (tmp_path / "mine" / "double" / "1" / "model.onnx").is_file()


def test_list_shows_broken_manifests_beside_the_others(repository: Path) -> None:
    broken = repository / "broken"
    broken.mkdir()
    (broken / "model.toml").write_text('name = "broken"\nservise = "vision"\ntasks = ["tensor"]\n')
    (repository / "double" / "2").mkdir()
    rows = {line.split("\t")[0]: line for line in models("list", "--models", repository).stdout.splitlines()}
    assert "servise: unknown key, did you mean 'service'?" in rows["broken"]
    assert "model.onnx is missing" in rows["double"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pull", "duoble"), "the zoo has no model 'duoble'; did you mean 'double'?"),
        (("pull", "double", "--from", "/no/such"), "--from /no/such: there is no such folder"),
        (("check", "double"), "does not exist: run 'headrace models pull double'"),
        (("check",), "run 'headrace models pull'"),
        (("list", "--config", "/no/such.toml"), "there is no such file"),
        (("add", "/no/such.onnx"), "there is no such file or folder"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    place = () if "--config" in arguments else ("--models", tmp_path)
    assert words in refused(models(*arguments, *place))


def test_an_own_classifier_is_taken_in(birds: Path, repository: Path) -> None:
    result = models("add", birds, "--labels", birds.with_suffix(".txt"), "--models", repository)
    assert result.exit_code == 0, result.stderr
    entry = next(entry for entry in Repository(repository).scan() if entry.name == "birds")
    assert entry.manifest is not None
    assert entry.manifest.image is not None
    assert (entry.manifest.image.width, entry.manifest.image.layout) == (64, "NCHW")
    loaded = entry.load()
    assert loaded.labels == ("robin", "wren", "heron", "kite")
    for engine in loaded.engines:
        engine.close()
    assert "exists already" in refused(models("add", birds, "--models", repository))


def test_what_cannot_be_served_is_refused_and_leaves_nothing(birds: Path, repository: Path) -> None:
    labels = birds.with_name("three.txt")
    labels.write_text("a\nb\nc\n")
    garbage = birds.with_name("garbage.onnx")
    garbage.write_bytes(b"garbage")
    for arguments, words in (
        ((birds, "--labels", labels), "has 3 lines, must have one for each of the 4 classes"),
        ((garbage,), "ONNX Runtime cannot load it"),
        ((birds, "--task", "classify"), "needs --labels FILE"),
        ((birds, "--task", "fly"), "vision has no such task, it has classify, embed, tensor"),
        ((birds, "--name", "../up"), "is no model name"),
        ((birds.parent,), "has no model.toml"),
    ):
        assert words in refused(models("add", *arguments, "--models", repository))
    assert [path.name for path in repository.iterdir() if path.is_dir()] == ["double"]


@needs_rtx
def test_engines_build_list_inspect(repository: Path) -> None:
    built = engines("build", "double", "--target", "sm89", "--models", repository)
    assert "built in" in built.stdout
    assert "built before" in engines("build", "double@1", "--target", "sm89", "--models", repository).stdout
    row = engines("list", "--models", repository).stdout.splitlines()[1].split("\t")
    assert (row[0], row[2], row[3]) == ("double@1", "sm89", "fp32")
    facts = engines("inspect", "double", "--models", repository).stdout
    assert "input      x FP32 [-1, 16]" in facts
    assert "profile    x [17, 16] to [64, 16]" in facts


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("build", "nope"), "no model 'nope'"),
        (("build", "double@7"), "no version '7', known: 1"),
        (("build", "double", "--target", "sm90"), "has no target 'sm90'"),
        (("build", "double", "--library", "cuda"), "no library is called 'cuda'"),
        (("build", "double", "--dim", "rows"), "write it as name=N"),
        (("build", "double", "--bucket", "4", "--bucket", "2"), "must be positive and rising"),
        (("inspect", "double"), "run 'headrace engines build double'"),
    ],
)
@needs_rtx
def test_engine_mistakes_are_one_line(arguments: tuple[str, ...], words: str, repository: Path) -> None:
    assert words in refused(engines(*arguments, "--models", repository))

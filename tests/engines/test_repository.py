import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engines import backends
from engines.base import EngineError, EngineLoadError
from engines.repository import Entry, NoSuchVersion, Repository
from engines.strict_toml import ConfigError

ModelWriter = Callable[..., Path]

TENSOR = 'service = "vision"\ntasks = ["tensor"]\n'
CLASSIFY = (
    'service = "vision"\ntasks = ["classify"]\n'
    '[image]\ninput = "pixels"\nwidth = 8\nheight = 8\n[classify]\noutput = "scores"\n'
)


def add(root: Path, name: str, text: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(f'name = "{name}"\n{text}')
    return folder


def only(root: Path) -> Entry:
    (entry,) = Repository(root).scan()
    return entry


def refusal(root: Path) -> str:
    """The one line that scanning or loading the only model of `root` ends with."""
    entry = only(root)
    if entry.error is not None:
        return str(entry.error)
    with pytest.raises((ConfigError, EngineLoadError)) as raised:
        entry.load()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_model_is_found_and_loaded(tmp_path: Path, double_model: ModelWriter) -> None:
    double_model(add(tmp_path, "double", TENSOR) / "1" / "model.onnx")
    entry = only(tmp_path)
    assert (entry.name, entry.versions, entry.error) == ("double", (1,), None)
    loaded = entry.load(cores=3)
    assert (loaded.version, loaded.backend, len(loaded.engines), loaded.labels) == (1, "onnxruntime", 3, ())
    assert "TensorRT cannot serve it" in loaded.reason
    y = loaded.engines[2].run({"x": np.ones((2, 4), np.float32)})["y"]
    np.testing.assert_array_equal(y, np.full((2, 4), 2, np.float32))


@pytest.mark.parametrize(
    ("instances", "cores", "engines"),
    [("", 1, 1), ("count = 2", 8, 2), ("threads = 2", 4, 2), ("threads = 4", 2, 1), ("count = 0", 2, 2)],
)
def test_the_number_of_engines_follows_the_cores(
    tmp_path: Path, double_model: ModelWriter, instances: str, cores: int, engines: int
) -> None:
    double_model(add(tmp_path, "double", TENSOR + f"[instances]\n{instances}") / "1" / "model.onnx")
    assert len(only(tmp_path).load(cores=cores).engines) == engines


def test_the_highest_version_is_the_default(tmp_path: Path, double_model: ModelWriter) -> None:
    folder = add(tmp_path, "double", TENSOR)
    for version in ("2", "10", "9"):
        double_model(folder / version / "model.onnx")
    (folder / "notes").mkdir()
    entry = only(tmp_path)
    assert entry.versions == (2, 9, 10)
    assert entry.load().version == 10
    assert entry.load("9").version == 9
    for unknown in ("1", "x", "-2", "02"):
        with pytest.raises(NoSuchVersion, match=f"no version '{unknown}', known: 2, 9, 10"):
            entry.load(unknown)


def test_bad_models_do_not_hide_the_others(tmp_path: Path, double_model: ModelWriter) -> None:
    double_model(add(tmp_path, "good", TENSOR) / "1" / "model.onnx")
    add(tmp_path, "typo", TENSOR + "[batchin]")
    add(tmp_path, "versionless", TENSOR)
    (tmp_path / "empty").mkdir()
    (tmp_path / ".pulling").mkdir()
    (tmp_path / "README").write_text("not a model")
    entries = {entry.name: entry for entry in Repository(tmp_path).scan()}
    assert sorted(entries) == ["empty", "good", "typo", "versionless"]
    assert [name for name, entry in entries.items() if entry.error is None] == ["good"]
    with pytest.raises(ConfigError, match="did you mean 'batching'"):
        entries["typo"].load()


def test_a_missing_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="models: cannot be read as a model folder: No such file"):
        Repository(tmp_path / "models").scan()


def test_a_model_without_versions(tmp_path: Path) -> None:
    folder = add(tmp_path, "m", TENSOR)
    assert "has no version folder, there must be one named 1, 2, ... with model.onnx inside" in refusal(tmp_path)
    (folder / "v1").mkdir()
    assert "(found 'v1')" in refusal(tmp_path)


def test_a_model_file_that_is_missing_or_corrupt(tmp_path: Path) -> None:
    version = add(tmp_path, "m", TENSOR) / "1"
    version.mkdir()
    assert "model.onnx: there is no such file; put the model there" in refusal(tmp_path)
    (version / "model.onnx").write_bytes(b"garbage")
    assert "model.onnx: ONNX Runtime cannot load it" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ('inputs = [{name = "x", datatype = "FP32", shape = [-1, 4]}]', ""),
        ('inputs = [{name = "x", datatype = "FP32", shape = ["n", 4]}]', ""),
        (
            'inputs = [{name = "x", datatype = "FP32", shape = [-1, 5]}]',
            "tensors.inputs: 'x' is declared [-1, 5], but the file says [-1, 4]",
        ),
        (
            'inputs = [{name = "x", datatype = "FP32", shape = [-1]}]',
            "tensors.inputs: 'x' is declared [-1], but the file says [-1, 4]",
        ),
        (
            'inputs = [{name = "x", datatype = "INT8", shape = [-1, 4]}]',
            "tensors.inputs: 'x' is declared INT8, but the file says FP32",
        ),
        (
            'outputs = [{name = "z", datatype = "FP32", shape = [-1, 4]}]',
            "tensors.outputs: 'z' is declared, but the file has y",
        ),
        (
            'inputs = [{name = "x", datatype = "FP32", shape = [1, 4]}]',
            "tensors.inputs: 'x' is declared [1, 4], but the file says [-1, 4]",
        ),
    ],
)
def test_declared_tensors_are_checked_against_the_file(
    tmp_path: Path, double_model: ModelWriter, tensors: str, problem: str
) -> None:
    double_model(add(tmp_path, "m", TENSOR + "[tensors]\n" + tensors) / "1" / "model.onnx")
    if problem:
        assert problem in refusal(tmp_path)
    else:
        only(tmp_path).load()


def test_a_classifier_with_its_labels(tmp_path: Path, classifier_model: ModelWriter) -> None:
    folder = add(tmp_path, "m", CLASSIFY)
    classifier_model(folder / "1" / "model.onnx")
    (folder / "labels.txt").write_text("cat\ndog\nhébé\n", encoding="utf-8")
    assert only(tmp_path).load().labels == ("cat", "dog", "hébé")
    (folder / "1" / "labels.txt").write_text("one\r\ntwo\r\nthree")
    assert only(tmp_path).load().labels == ("one", "two", "three")


@pytest.mark.parametrize("open_classes", [False, True])
def test_labels_are_counted(tmp_path: Path, classifier_model: ModelWriter, open_classes: bool) -> None:
    folder = add(tmp_path, "m", CLASSIFY)
    classifier_model(folder / "1" / "model.onnx", 3, open_classes)
    assert "classify.labels: there is no file 'labels.txt', put it in" in refusal(tmp_path)
    (folder / "labels.txt").write_text("cat\ndog\n")
    assert "labels.txt: has 2 lines, must have one for each of the 3 classes" in refusal(tmp_path)
    (folder / "labels.txt").write_bytes(b"\xff\n")
    assert "cannot be read as UTF-8 text" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('input = "pixels"', 'input = "x"', "image.input: is 'x', but the model has pixels"),
        ('output = "scores"', 'output = "y"', "classify.output: is 'y', but the model has scores"),
        (
            "width = 8",
            "width = 9",
            "image: 9 x 8 pixels in NCHW are [-1, 3, 8, 9], but 'pixels' takes [-1, 3, 8, 8]",
        ),
        ("height = 8", 'height = 8\nlayout = "NHWC"', "image: 8 x 8 pixels in NHWC are [-1, 8, 8, 3], but"),
    ],
)
def test_sections_are_checked_against_the_file(
    tmp_path: Path, classifier_model: ModelWriter, old: str, new: str, problem: str
) -> None:
    folder = add(tmp_path, "m", CLASSIFY.replace(old, new))
    classifier_model(folder / "1" / "model.onnx")
    (folder / "labels.txt").write_text("a\nb\nc\n")
    assert problem in refusal(tmp_path)


def test_a_file_that_lies_about_its_shapes_is_refused(tmp_path: Path, double_model: ModelWriter) -> None:
    double_model(add(tmp_path, "m", TENSOR) / "1" / "model.onnx", ["batch", 4], ["batch", 5])
    assert "Inferred=4 Declared=5" in refusal(tmp_path)


def test_the_fake_is_loaded_by_manifest_alone(tmp_path: Path) -> None:
    text = 'backend = "fake"\n' + TENSOR + "[fake]\nfactor = 3\nfail_on = 13\n"
    text += '[[fake.inputs]]\nname = "x"\ndatatype = "FP32"\nshape = [-1, 2]\n'
    add(tmp_path, "pretend", text)
    loaded = only(tmp_path).load(cores=2)
    assert (loaded.backend, loaded.reason, len(loaded.engines)) == ("fake", "the manifest asks for it", 2)
    engine = loaded.engines[0]
    np.testing.assert_array_equal(engine.run({"x": np.ones((1, 2), np.float32)})["y"], [[3, 3]])
    with pytest.raises(EngineError):
        engine.run({"x": np.full((1, 2), 13, np.float32)})


class _Runtime:
    """A TensorRT runtime that says what it was made to say."""

    def __init__(self, problem: str) -> None:
        self.problem = problem

    def obstacle(self, model: Path) -> str:
        return self.problem


@pytest.mark.parametrize(
    ("backend", "problem", "choice"),
    [
        ("auto", "", backends.Choice("tensorrt", "a GPU, the library and a plan are there")),
        ("auto", "no GPU", backends.Choice("onnxruntime", "TensorRT cannot serve it: no GPU")),
        ("tensorrt", "", backends.Choice("tensorrt", "the manifest asks for it")),
        ("onnxruntime", "", backends.Choice("onnxruntime", "the manifest asks for it")),
    ],
)
def test_the_backend_and_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, problem: str, choice: backends.Choice
) -> None:
    monkeypatch.setattr(backends, "_tensorrt_runtime", lambda: _Runtime(problem))
    folder = add(tmp_path, "m", f'backend = "{backend}"\n' + TENSOR)
    (folder / "1").mkdir()
    manifest = only(tmp_path).manifest
    assert manifest is not None
    assert backends.choose(manifest, folder / "1") == choice


def test_tensorrt_by_name_refuses_rather_than_falls_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, double_model: ModelWriter
) -> None:
    monkeypatch.setattr(backends, "_tensorrt_runtime", lambda: _Runtime("there is no NVIDIA GPU"))
    double_model(add(tmp_path, "m", 'backend = "tensorrt"\n' + TENSOR) / "1" / "model.onnx")
    line = r"backend 'tensorrt' cannot serve it: there is no NVIDIA GPU; backend = \"auto\" would fall back"
    assert re.search(line, refusal(tmp_path))

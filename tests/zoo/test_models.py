from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from engines.base import Array, Engine, EngineError, Tensors
from engines.onnx import OnnxEngine
from engines.repository import Repository
from engines.zoo import registry
from engines.zoo.artifacts import Artifacts
from engines.zoo.check import check
from engines.zoo.efficientnet_lite0 import labels
from engines.zoo.errors import CheckError, ZooError
from engines.zoo.graph import BatchNorm, Convolution, Graph, same_padding
from engines.zoo.pull import pull
from engines.zoo.recipe import Bench, Fixture


@pytest.mark.parametrize("name", registry.NAMES)
def test_each_model_computes_what_its_fixture_says(name: str, models: Path) -> None:
    recipe = registry.recipe(name)
    result = check(recipe, models)
    assert result.error <= result.tolerance
    assert result.proof or recipe.proof is None


@pytest.mark.parametrize("name", registry.NAMES)
def test_each_model_is_served_as_its_manifest_says(name: str, models: Path) -> None:
    entry = next(entry for entry in Repository(models).scan() if entry.name == name)
    assert entry.error is None
    loaded = entry.load()
    try:
        loaded.engines[0].warm_up()
    finally:
        for engine in loaded.engines:
            engine.close()


def test_efficientnet_knows_a_photograph(models: Path) -> None:
    assert check(registry.recipe("efficientnet_lite0"), models).proof.startswith("sees: palace")


def test_efficientnet_gives_a_row_the_same_answer_in_any_batch(models: Path) -> None:
    engine = OnnxEngine(models / "efficientnet_lite0" / "1" / "model.onnx")
    x = np.random.default_rng(7).standard_normal((3, 3, 224, 224)).astype(np.float32)
    together = engine.run({"x": x})
    alone = [engine.run({"x": x[index : index + 1]}) for index in range(3)]
    for name, shape in (("logits", (3, 1000)), ("features", (3, 1280))):
        assert together[name].shape == shape
        np.testing.assert_allclose(together[name], np.concatenate([part[name] for part in alone]), atol=1e-4)
    engine.close()


def test_labels_are_a_thousand_different_names(models: Path) -> None:
    names = (models / "efficientnet_lite0" / "labels.txt").read_text().splitlines()
    assert len(names) == len(set(names)) == 1000
    assert (names[0], names[207], names[999]) == ("tench", "golden retriever", "toilet tissue")


def test_labels_that_share_a_word_are_told_apart() -> None:
    lemmas = "n1\tmaillot\nn2\tmaillot, tank suit\nn3\trobin, American robin\n"
    assert labels("n3\nn1\nn2\n", lemmas) == "robin\nmaillot\nmaillot, tank suit\n"


def test_check_tells_damage_and_absence(tmp_path: Path) -> None:
    recipe = registry.recipe("double")
    with pytest.raises(CheckError, match="does not exist: run 'headrace models pull double'"):
        check(recipe, tmp_path)
    folder = pull(recipe, tmp_path, Artifacts(tmp_path / "cache")).folder
    manifest = folder / "model.toml"
    manifest.write_text(manifest.read_text() + "# a remark\n")
    check(recipe, tmp_path)

    model = folder / "1" / "model.onnx"
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + b"\0")
    with pytest.raises(CheckError, match=r"model.onnx is damaged or was changed \(SHA-256 differs\)"):
        check(recipe, tmp_path)
    model.unlink()
    with pytest.raises(CheckError, match="cannot be read"):
        check(recipe, tmp_path)


def test_check_finds_a_model_that_computes_something_else(tmp_path: Path) -> None:
    recipe = registry.recipe("double")
    pull(recipe, tmp_path, Artifacts(tmp_path / "cache"))
    wrong = replace(recipe, fixture=replace(recipe.fixture, inputs=lambda: {"x": np.ones((2, 16), np.float32)}))
    with pytest.raises(CheckError, match="computes something else: greatest error"):
        check(wrong, tmp_path)


def test_a_model_may_have_several_fixtures_and_compare_a_part_of_what_it_computes(tmp_path: Path) -> None:
    def first(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"y": outputs["y"][:2]}

    def inputs() -> Tensors:
        return {"x": np.vstack([recipe.fixture.inputs()["x"], np.full((1, 16), np.nan, np.float32)])}

    recipe = registry.recipe("double")
    pull(recipe, tmp_path, Artifacts(tmp_path / "cache"))
    cut = Fixture("double.npz", inputs, 1e-3, first)
    assert check(replace(recipe, more_fixtures=(cut,)), tmp_path).error == 0.0
    with pytest.raises(CheckError, match="'y' is missing or of another shape"):
        check(replace(recipe, more_fixtures=(replace(cut, take=None),)), tmp_path)
    with pytest.raises(CheckError, match="greatest error nan"):
        check(replace(recipe, more_fixtures=(replace(cut, take=lambda outputs: {"y": outputs["y"][1:]}),)), tmp_path)


def test_a_proof_reaches_other_models_of_the_repository(tmp_path: Path) -> None:
    def proof(bench: Bench) -> str:
        assert bench.engine("double") is bench.engine("double")
        opened.append(bench.engine("double"))
        return f"doubles 21 to {bench.engine('double').run({'x': np.full((1, 16), 21, np.float32)})['y'][0, 0]:.0f}"

    opened: list[Engine] = []
    recipe = registry.recipe("double")
    pull(recipe, tmp_path, Artifacts(tmp_path / "cache"))
    assert check(replace(recipe, proof=proof), tmp_path).proof == "doubles 21 to 42"
    with pytest.raises(EngineError):
        opened[0].run({"x": np.ones((1, 16), np.float32)})
    with pytest.raises(CheckError, match=r"nothing/model\.toml"):
        check(replace(recipe, proof=lambda bench: str(bench.engine("nothing"))), tmp_path)


def test_an_unknown_model_gets_the_nearest_name() -> None:
    with pytest.raises(ZooError, match="no model 'efficientnet_lite'; did you mean 'efficientnet_lite0'"):
        registry.recipe("efficientnet_lite")


@pytest.mark.parametrize(("size", "stride", "kernel"), [(8, 1, 3), (8, 2, 3), (7, 2, 3), (8, 2, 5), (7, 2, 5)])
def test_folded_convolution_equals_convolution_and_batch_norm(size: int, stride: int, kernel: int) -> None:
    random = np.random.default_rng(3)
    norm = BatchNorm(*(random.uniform(0.5, 2, 4).astype(np.float32) for _ in range(4)), epsilon=1e-3)  # type: ignore[misc]  # four vectors
    weight = random.standard_normal((4, 3, kernel, kernel)).astype(np.float32)
    graph = Graph("one")
    _, made = graph.convolution("x", "y", Convolution(weight, norm, stride), size)
    session = ort.InferenceSession(graph.to_bytes({"x": ["n", 3, size, size]}, {"y": ["n", 4, made, made]}))
    x = random.standard_normal((2, 3, size, size)).astype(np.float32)

    before, after = same_padding(size, kernel, stride)
    padded = np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]
    plain = np.einsum("bchwij,ocij->bohw", windows, weight)
    shape = (1, 4, 1, 1)
    expected = (plain - norm.mean.reshape(shape)) / np.sqrt(norm.variance.reshape(shape) + 1e-3)
    expected = expected * norm.weight.reshape(shape) + norm.bias.reshape(shape)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, atol=1e-4)

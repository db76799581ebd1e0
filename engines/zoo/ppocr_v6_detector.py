"""PP-OCRv6 small, text detection: the probability of each pixel to be text (DB)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from onnx import TensorProto, helper

from engines.base import Array, Tensors
from engines.zoo import ppocr
from engines.zoo.recipe import Fixture, Recipe, Step

_FILE: Final = "rapidocr/models/PP-OCRv6_det_small.onnx"
_NAME: Final = "ppocr_v6_detector"
_OUTPUT: Final = "probability"
_PAGE: Final = Path(__file__).parent / "fixtures" / "reading_page.png"
_CELL: Final = 16


def build(files: Mapping[str, bytes], _step: Step) -> Mapping[str, bytes]:
    """The network with named dimensions. Raises CheckpointError when the file is another network."""
    model = ppocr.read(files[_FILE], _NAME)
    ppocr.rename(model, model.graph.output[0].name, _OUTPUT)
    shape = ["batch", 1, "map_height", "map_width"]
    output = helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, shape)
    return {"1/model.onnx": ppocr.write(model, _NAME, ["batch", 3, "height", "width"], [output])}


def _inputs() -> Tensors:
    return {ppocr.INPUT: ppocr.pixels(_PAGE, ppocr.DETECTOR_MEAN, ppocr.DETECTOR_SCALE)}


def _cells(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """The mean of each cell of the map: where the four lines of the page are."""
    rows, _, height, width = outputs[_OUTPUT].shape
    cells = outputs[_OUTPUT].reshape(rows, height // _CELL, _CELL, width // _CELL, _CELL).mean((2, 4))
    return {"cells": cells.astype(np.float32)}


RECIPE: Final = Recipe(
    name=_NAME,
    revision=1,
    summary="finds the lines of text in pictures; part of ppocr_v6",
    licence="Apache-2.0",
    wheels=(ppocr.wheel(_FILE, "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f"),),
    build=build,
    fixture=Fixture("ppocr_v6_detector.npz", _inputs, tolerance=1e-3, take=_cells),
)

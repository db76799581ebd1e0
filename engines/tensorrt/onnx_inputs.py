"""The inputs of an ONNX file with the names of their open dimensions, which TensorRT's parser does not keep."""

from pathlib import Path
from typing import Any, Final

import onnx

from engines.base import TensorSpec
from engines.tensorrt.libraries import TensorRTError

_CONTROL_FLOW: Final = frozenset({"If", "Loop", "Scan"})


def read_inputs(model_file: Path) -> tuple[TensorSpec, ...]:
    """Inputs that are no constants. A nameless open dimension is called `<input>.<axis>`. Raises TensorRTError."""
    try:
        model = onnx.load(str(model_file), load_external_data=False)
    except OSError as error:
        raise TensorRTError(f"{model_file} cannot be read: {error.strerror}") from error
    except Exception as error:
        # Protobuf's decoding error, which this folder does not import.
        raise TensorRTError(f"{model_file} is no ONNX model, or a damaged one; export or pull it again") from error
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and not (model_file.parent / entry.value).is_file():
                raise TensorRTError(
                    f"{model_file}: its weights '{entry.value}' are not beside it; pull or copy them too"
                )
    constants = {tensor.name for tensor in model.graph.initializer}
    found = tuple(_spec(value) for value in model.graph.input if value.name not in constants)
    if not found or not model.graph.output:
        raise TensorRTError(f"{model_file} is no ONNX model: it has no inputs or no outputs; export or pull it again")
    return found


def control_flow(model_file: Path) -> tuple[str, ...]:
    """The nodes of the main graph that choose or repeat at run time, as "node 'name' (If)"."""
    model = onnx.load(str(model_file), load_external_data=False)
    return tuple(
        f"node '{node.name or node.output[0]}' ({node.op_type})"
        for node in model.graph.node
        if node.op_type in _CONTROL_FLOW
    )


def _spec(value: Any) -> TensorSpec:
    dimensions = value.type.tensor_type.shape.dim
    shape = (
        size.dim_value if size.HasField("dim_value") else size.dim_param or f"{value.name}.{axis}"
        for axis, size in enumerate(dimensions)
    )
    return TensorSpec(value.name, "FP32", tuple(shape))

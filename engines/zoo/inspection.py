"""What an ONNX file tells about how to serve it."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import onnx

from engines.base import EngineLoadError, TensorSpec
from engines.onnx import OnnxEngine
from engines.zoo.errors import ZooError

_ACTIVATIONS: Final = frozenset({"Softmax", "Sigmoid", "LogSoftmax"})


@dataclass(frozen=True, slots=True)
class Facts:
    """Tensors as ONNX Runtime sees them; `activated`: outputs that come out of a softmax or sigmoid; `external`: names
    of the files beside it that hold its weights.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    activated: frozenset[str]
    external: tuple[str, ...]


def inspect(path: Path) -> Facts:
    """Look into the file. Raises ZooError when it is no model that can be loaded."""
    try:
        engine = OnnxEngine(path)
    except EngineLoadError as error:
        raise ZooError(str(error)) from error
    signature = engine.signature
    engine.close()
    model = onnx.load(str(path), load_external_data=False)
    activated = frozenset(name for node in model.graph.node if node.op_type in _ACTIVATIONS for name in node.output)
    external = sorted(
        {entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"}
    )
    for name in external:
        if PurePosixPath(name).name != name:
            raise ZooError(f"{path}: its weights lie in '{name}', they must lie beside it")
    return Facts(signature.inputs, signature.outputs, activated, tuple(external))

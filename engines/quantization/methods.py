"""How a network becomes an INT8 one, by ONNX Runtime's quantiser.

Convolutional networks: static, weights per channel and symmetric in S8, activations in U8 with ranges from calibration,
as QuantizeLinear/DequantizeLinear pairs. Dynamic ranges cost convolutions more than they gain.
Transformers: dynamic, the weights of matrix products in S8 per channel; their activations vary too much from text to
text for fixed ranges.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import onnx
import onnxruntime as ort

from engines.base import Tensors
from engines.tuning.machine import multiplies_bytes
from engines.zoo.errors import ZooError

#: Numbers of first convolutions left in FP32, tried in this order: early activations have the widest ranges.
_LEFT_ALONE: Final = (0, 3, 12)


@dataclass(frozen=True, slots=True)
class Method:
    """`words` say what it does; `make(source, target)` writes the quantised file. Raises ZooError."""

    words: str
    make: Callable[[Path, Path], None]


def static(source: Path, calibration: Sequence[Tensors]) -> list[Method]:
    """Methods for a convolutional network, the most quantised first."""
    convolutions = _names(source, "Conv")
    if not convolutions:
        raise ZooError(f"{source}: has no convolution to quantise")
    return [
        Method(_static_words(count), partial(_static, calibration=calibration, left_alone=count))
        for count in _LEFT_ALONE
        if count < len(convolutions)
    ]


def dynamic(source: Path) -> list[Method]:
    """Methods for a transformer."""
    if not _names(source, "MatMul"):
        raise ZooError(f"{source}: has no matrix product to quantise")
    return [Method("dynamic INT8, weights of MatMul per channel", _dynamic)]


def _static_words(count: int) -> str:
    layers = f"all but the first {count} convolutions" if count else "every layer"
    return f"static INT8 (QDQ, weights per channel), {layers}"


def _static(source: Path, target: Path, calibration: Sequence[Tensors], left_alone: int) -> None:
    from onnxruntime import quantization as ortq  # noqa: PLC0415 - takes half a second to import.

    class Reader(ortq.CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            self._left = iter(calibration)

        def get_next(self) -> Tensors | None:
            return next(self._left, None)

    folded = target.with_name("folded.onnx")
    with _translated(source):
        _fold(source, folded)
        ortq.quantize_static(
            folded,
            target,
            Reader(),
            quant_format=ortq.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=not multiplies_bytes(),
            activation_type=ortq.QuantType.QUInt8,
            weight_type=ortq.QuantType.QInt8,
            nodes_to_exclude=_names(folded, "Conv")[:left_alone],
            calibrate_method=ortq.CalibrationMethod.MinMax,
        )
    folded.unlink()


def _dynamic(source: Path, target: Path) -> None:
    from onnxruntime import quantization as ortq  # noqa: PLC0415 - takes half a second to import.

    with _translated(source):
        ortq.quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=not multiplies_bytes(),
            weight_type=ortq.QuantType.QInt8,
        )


def _fold(source: Path, target: Path) -> None:
    """Fold constants and batch normalisations, so that ranges are those of what is computed; name every node."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    model = onnx.load(str(target))
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}.{number}"
    onnx.save(model, str(target))


def _names(path: Path, op_type: str) -> list[str]:
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:  # protobuf's and onnx's exceptions share no base class below Exception.
        raise ZooError(f"{path}: cannot be read as an ONNX file ({error})") from error
    return [node.name for node in graph.node if node.op_type == op_type]


@contextmanager
def _translated(source: Path) -> Iterator[None]:
    """The quantiser's exceptions are of any kind, and its advice to pre-process is followed already."""
    before: Any = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise ZooError(f"{source}: ONNX Runtime cannot quantise it ({words})") from error
    finally:
        logging.disable(before)

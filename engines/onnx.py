"""ONNX Runtime on the CPU as an engine."""

import copy
import ctypes
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from engines.base import Array, EngineError, EngineLoadError, Signature, Tensors, TensorSpec
from engines.signatures import check_outputs, zeros

#: ONNX Runtime's type name -> Open Inference Protocol datatype.
_DATATYPES: Final = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_LOG_FATAL: Final = 4
_SIZES_TO_TRY: Final = (1, 16, 224)


class OnnxEngine:
    """One session of `threads` threads, one of which is the caller's. Raises EngineLoadError.

    The signature is the file's own, where a dimension without a name gets one. Exporters often lose the name of an
    output's first dimension: where the names leave open whether it is the inputs' first, a run on zeros decides.
    """

    any_thread = True

    def __init__(self, path: Path, threads: int = 1) -> None:
        if not path.is_file():
            raise EngineLoadError(f"{path}: there is no such file; put the model there, or pull it again")
        try:
            self._session = ort.InferenceSession(path, _options(threads), providers=["CPUExecutionProvider"])
        except Exception as error:
            # The runtime's exceptions share no base class below Exception.
            raise EngineLoadError(
                f"{path}: ONNX Runtime cannot load it ({_first_line(error)}); pull or export the model again"
            ) from error
        _return_memory()
        self._path = path
        self.computes_in_caller = threads == 1
        inputs = tuple(_spec(node, path) for node in self._session.get_inputs())
        outputs = tuple(_spec(node, path) for node in self._session.get_outputs())
        self._signature = Signature(inputs, outputs, batchable=False)
        self._names = [spec.name for spec in outputs]
        self._text_inputs = [spec.name for spec in inputs if spec.datatype == "BYTES"]
        self._text_outputs = [spec.name for spec in outputs if spec.datatype == "BYTES"]
        self._signature = self._with_rows(inputs, outputs)

    @property
    def signature(self) -> Signature:
        """Return the file's tensors."""
        return self._signature

    def warm_up(self) -> None:
        """Run zeros and check what comes back. Raises EngineError.

        Where shapes are open, no size may be the right one to try; then the first real batch is the warm-up.
        """
        error = self._trial(self._signature)
        if error is not None:
            raise error

    def run(self, batch: Tensors) -> dict[str, Array]:
        """Compute every output. BYTES elements must be UTF-8, as in ONNX. Raises EngineError."""
        feed = dict(batch)
        try:
            for name in self._text_inputs:
                feed[name] = _decoded(feed[name])
            outputs = dict(zip(self._names, self._session.run(self._names, feed), strict=True))
        except Exception as error:
            raise EngineError(f"{self._path.name}: {_first_line(error)}") from error
        for name in self._text_outputs:
            outputs[name] = _encoded(outputs[name])
        return outputs

    def twin(self) -> "OnnxEngine | None":
        """Return an engine that computes beside this one on the same weights; None where it would share threads."""
        return copy.copy(self) if self.computes_in_caller else None

    def close(self) -> None:
        """Give back the session's memory, once its twins have too. Idempotent; run fails afterwards."""
        self._session = None

    def _with_rows(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Signature:
        single = Signature(inputs, outputs, batchable=False)
        rows = {spec.shape[0] if spec.shape else 0 for spec in inputs}
        others = {spec.shape[0] if spec.shape else 0 for spec in outputs}
        if len(rows) != 1 or not all(isinstance(size, str) for size in rows | others):
            return single
        name = rows.pop()
        batched = Signature(
            inputs, tuple(replace(spec, shape=(name, *spec.shape[1:])) for spec in outputs), batchable=True
        )
        return batched if others == {name} or self._trial(batched) is None else single

    def _trial(self, signature: Signature) -> EngineError | None:
        """Run 1 and 2 rows of zeros; return what is wrong with them, if anything.

        Where inputs have open sizes, one that cannot be run proves nothing; outputs unlike the signature's do.
        """
        is_open = _has_open_sizes(signature)
        wrong: EngineError | None = None
        for size in _SIZES_TO_TRY if is_open else (1,):
            try:
                runs = [(rows, self.run(zeros(signature, rows, size))) for rows in _rows_to_try(signature)]
            except EngineError as error:
                wrong = wrong if is_open else error
                continue
            try:
                for rows, outputs in runs:
                    check_outputs(signature, outputs, rows)
            except EngineError as error:
                wrong = error
                continue
            return None
        return wrong


def _rows_to_try(signature: Signature) -> tuple[int, ...]:
    return (1, 2) if signature.batchable else (1,)


def _has_open_sizes(signature: Signature) -> bool:
    skip = 1 if signature.batchable else 0
    return any(isinstance(size, str) for spec in signature.inputs for size in spec.shape[skip:])


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Threads that spin while they wait take the cores that gRPC and other engines need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # A file whose declared shapes contradict its own graph is refused, not served with the shapes left open.
    options.add_session_config_entry("session.strict_shape_type_inference", "1")
    # What goes wrong is raised; the runtime's own log would only repeat it on stderr.
    options.log_severity_level = _LOG_FATAL
    return options


def _return_memory() -> None:
    """Hand what loading has freed back to the system: the allocator would keep half a large file's size. glibc only."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return


def _spec(node: Any, path: Path) -> TensorSpec:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        raise EngineLoadError(f"{path}: tensor '{node.name}' is of type {node.type}, which cannot be served")
    shape = tuple(_dimension(size, axis, node.name) for axis, size in enumerate(node.shape))
    return TensorSpec(node.name, datatype, shape)


def _dimension(size: int | str | None, axis: int, tensor: str) -> int | str:
    if isinstance(size, int) and size >= 0:
        return size
    if isinstance(size, str) and size:
        return size
    return "rows" if axis == 0 else f"{tensor}.{axis}"


def _decoded(array: Array) -> Array:
    texts = [item.decode() if isinstance(item, bytes) else item for item in array.flat]
    return np.array(texts, object).reshape(array.shape)


def _encoded(array: Array) -> Array:
    return np.array([text.encode() for text in array.flat], object).reshape(array.shape)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]

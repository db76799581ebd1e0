"""One parse and build with `tensorrt` or `tensorrt_rtx`, whose Python interfaces are alike but for the table."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from engines.tensorrt.libraries import Library, TensorRTError
from engines.tensorrt.onnx_inputs import control_flow
from engines.tensorrt.plans import Profile, TensorInfo

_log = logging.getLogger(__name__)
_LONGEST_COMPLAINT: Final = 300
_DATATYPES: Final = {
    "FLOAT": "FP32", "HALF": "FP16", "BF16": "BF16", "INT8": "INT8", "INT32": "INT32", "INT64": "INT64", "BOOL": "BOOL",
    "UINT8": "UINT8", "FP8": "FP8", "INT4": "INT4", "FP4": "FP4",
}  # fmt: skip


class BuildSession:
    """A network being parsed and built. Not reusable: one session, one model."""

    def __init__(self, trt: Any, library: Library, model_file: Path) -> None:
        self._trt, self._library, self._file = trt, library, model_file
        self._complaints: list[str] = []
        # TensorRT keeps bare pointers to these, so they live as long as the session.
        self._logger = make_logger(trt, self._complaints)
        self._builder = trt.Builder(self._logger)
        self._network = self._builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self._parser = trt.OnnxParser(self._network, self._logger)

    @property
    def version(self) -> str:
        """The library's version."""
        return str(self._trt.__version__)

    def parse(self) -> None:
        """Read the ONNX file into the network. Raises TensorRTError naming the node that is not supported."""
        try:
            data = self._file.read_bytes()
        except OSError as error:
            raise TensorRTError(f"{self._file} cannot be read: {error.strerror}") from error
        # The path lets the parser find external weights beside the file.
        if not self._parser.parse(data, str(self._file)):
            raise TensorRTError(f"{self._file}: {self._first_error()}")

    def precision(self) -> str:
        """The floating-point types of the network's tensors, as the file has them: "fp32", "fp16+fp32", ..."""
        floats = ("FP32", "FP16", "BF16", "FP8", "FP4")
        outputs = (layer.get_output(index) for layer in self._layers() for index in range(layer.num_outputs))
        types = {_datatype(tensor) for tensor in outputs}
        return "+".join(sorted(name.lower() for name in types if name in floats)) or "integer"

    def inputs(self) -> tuple[TensorInfo, ...]:
        """The network's inputs."""
        return tuple(_info(self._network.get_input(index)) for index in range(self._network.num_inputs))

    def outputs(self) -> tuple[TensorInfo, ...]:
        """The network's outputs."""
        return tuple(_info(self._network.get_output(index)) for index in range(self._network.num_outputs))

    def serialize(self, targets: Sequence[str], profiles: Sequence[Profile]) -> bytes:
        """Build the plan. Raises TensorRTError with the library's last complaint."""
        config = self._builder.create_builder_config()
        for profile in profiles:
            self._add(config, profile)
        if targets:
            config.num_compute_capabilities = len(targets)
            for index, target in enumerate(targets):
                config.set_compute_capability(getattr(self._trt.ComputeCapability, target.upper()), index)
        plan = self._builder.build_serialized_network(self._network, config)
        if plan is None:
            version, why = f"{self._library.name} {self.version}", f"{self._complaint()}{self._suspects()}"
            raise TensorRTError(f"{self._file}: {version} cannot build it: {why}")
        return bytes(plan)

    def _suspects(self) -> str:
        """What a parsed network most often fails to build over, named: the library's own words tell no node."""
        found = control_flow(self._file)
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return f"; it decides at run time by {found[0]}{more}: export it without" if found else ""

    def _add(self, config: Any, profile: Profile) -> None:
        made = self._builder.create_optimization_profile()
        for name in profile.least:
            made.set_shape(name, profile.least[name], profile.best[name], profile.greatest[name])
        if config.add_optimization_profile(made) < 0:
            raise TensorRTError(
                f"{self._file}: {self._library.name} refuses the profile {profile.greatest}: {self._complaint()}"
            )

    def _layers(self) -> Iterator[Any]:
        return (self._network.get_layer(index) for index in range(self._network.num_layers))

    def _first_error(self) -> str:
        version = f"{self._library.name} {self.version}"
        for index in range(self._parser.num_errors):
            error = self._parser.get_error(index)
            if error.code() == self._trt.ErrorCode.MODEL_DESERIALIZE_FAILED:
                return "is no ONNX model, or a damaged one; export or pull it again"
            if error.node_operator():
                node = f"node '{error.node_name() or error.node()}' ({error.node_operator()})"
                detail = "" if error.desc() in {"", "false"} else f": {error.desc()}"
                return f"{node} is not supported by {version}{detail}"
        return f"{version} cannot parse it: {self._complaint()}"

    def _complaint(self) -> str:
        return " ".join(self._complaints[-1].split())[:_LONGEST_COMPLAINT] if self._complaints else "it gives no reason"


def make_logger(trt: Any, complaints: list[str]) -> Any:
    """A TensorRT logger: errors are collected in `complaints`, everything goes to Python's logging."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # The base class exists only once the library is loaded.
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                complaints.append(message)
            if severity != trt.ILogger.VERBOSE:
                _log.debug("%s", message)

    return Logger()


def _info(tensor: Any) -> TensorInfo:
    return TensorInfo(name=tensor.name, datatype=_datatype(tensor), shape=tuple(tensor.shape))


def _datatype(tensor: Any) -> str:
    name = str(tensor.dtype.name)
    return _DATATYPES.get(name, name)

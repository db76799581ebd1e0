"""One Open Inference request, from its parameters to the response message; unary calls and stream items alike."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from engines.base import Array, TensorSpec
from engines.work import Outcome, Work
from headrace.inference import open_inference_pb2 as pb
from services.chassis.call import Call, Receipt
from services.chassis.errors import invalid_argument, quote
from services.chassis.models import LoadedModel, ModelHost
from services.chassis.tensors import TensorCodec, classification, describe, encode

#: Parameters of the protocol's sequence extension, which no model here has.
_SEQUENCE: Final = frozenset({"sequence_id", "sequence_start", "sequence_end"})
#: The only reserved parameter that requests may set; what it asks for, every answer here does.
_FINAL_RESPONSE: Final = "triton_enable_empty_final_response"
_MAX_TIMEOUT_US: Final = 10**12


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """An output that a request asks for; `top_k` above 0 asks for it as a classification."""

    spec: TensorSpec
    top_k: int = 0


async def infer(host: ModelHost, request: pb.ModelInferRequest, call: Call, deadline: float) -> pb.ModelInferResponse:
    """Run one request until `deadline` (monotonic seconds). Raises ServiceError."""
    name, version = request.model_name, request.model_version
    model = host.resolve(f"{name}@{version}" if version else name, "tensor")
    codec = model.codec
    assert codec is not None  # noqa: S101  # A READY model has one.
    parameters = request.parameters
    if parameters:
        deadline = _deadline(parameters, deadline)
    wanted = _wanted(codec, request.outputs) if request.outputs else None
    tensors = codec.decode(request)
    outcome = await host.infer(model, Work(tensors.inputs, tensors.rows, deadline, call.trace))
    receipt = call.record(model.name, model.version, (outcome,))
    response = _response(model, outcome, wanted)
    if request.id:
        response.id = request.id
    _tell(response.parameters, receipt)
    return response


def _deadline(parameters: Mapping[str, pb.InferParameter], deadline: float) -> float:
    """Read the reserved parameters: `timeout` in microseconds may only bring the deadline forward."""
    for name, parameter in parameters.items():
        if name == "timeout":
            timeout = _integer(name, parameter)
            if timeout:
                deadline = min(deadline, time.monotonic() + timeout * 1e-6)
        elif name == "priority":
            _integer(name, parameter)  # Accepted: there is one level, and every request has it.
        elif name in _SEQUENCE:
            if _value(parameter):
                problem = "is set, and no model here keeps state between requests; leave the sequence parameters out"
                raise invalid_argument(f"parameters[{name}]", problem)
        elif name.startswith("triton_") and name != _FINAL_RESPONSE:
            raise invalid_argument(f"parameters[{quote(name)}]", "is reserved; names must not start with 'triton_'")
    return deadline


def _value(parameter: pb.InferParameter) -> object:
    choice = parameter.WhichOneof("parameter_choice")
    return getattr(parameter, choice) if choice else None


def _integer(name: str, parameter: pb.InferParameter) -> int:
    value = _value(parameter)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_TIMEOUT_US:
        problem = f"must be an int64_param of 0 to {_MAX_TIMEOUT_US}"
        raise invalid_argument(f"parameters[{name}]", problem)
    return value


def _wanted(codec: TensorCodec, outputs: Sequence[Any]) -> list[WantedOutput]:
    """The outputs asked for, in the order of the request."""
    wanted: dict[str, WantedOutput] = {}
    for index, output in enumerate(outputs):
        name = output.name
        spec = codec.outputs.get(name)
        if spec is None or name in wanted:
            problem = "is asked for twice" if spec is not None else "is not an output of the model"
            known = "; ".join(describe(spec) for spec in list(codec.outputs.values())[:8])
            raise invalid_argument(f"outputs[{index}].name", f"{quote(name)} {problem}; it gives {known}")
        top_k = _output_options(index, spec, output.parameters) if output.parameters else 0
        wanted[name] = WantedOutput(spec, top_k)
    return list(wanted.values())


def _output_options(index: int, spec: TensorSpec, parameters: Mapping[str, pb.InferParameter]) -> int:
    field = f"outputs[{index}].parameters"
    if any(name.startswith("shared_memory") for name in parameters):
        raise invalid_argument(field, "asks for shared memory, which is not served; answers are in raw_output_contents")
    if "classification" not in parameters:
        return 0
    top_k = _value(parameters["classification"])
    if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
        raise invalid_argument(f"{field}[classification]", "must be an int64_param of at least 1")
    if spec.datatype == "BYTES":
        raise invalid_argument(f"{field}[classification]", f"needs numbers, and {quote(spec.name)} is BYTES")
    return top_k


def _response(model: LoadedModel, outcome: Outcome, wanted: Sequence[WantedOutput] | None) -> pb.ModelInferResponse:
    """Tensors as raw contents, one entry an output: clients read nothing else."""
    response = pb.ModelInferResponse(model_name=model.name, model_version=model.version)
    outputs, raws = response.outputs, response.raw_output_contents
    if wanted is None:
        for spec in model.signature.outputs:
            array = outcome.outputs[spec.name]
            outputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
            raws.append(encode(array))
        return response
    for item in wanted:
        spec, array = item.spec, outcome.outputs[item.spec.name]
        datatype = spec.datatype
        if item.top_k:
            array, datatype = _classes(model, spec, array, item.top_k), "BYTES"
        outputs.add(name=spec.name, datatype=datatype, shape=array.shape)
        raws.append(encode(array))
    return response


def _classes(model: LoadedModel, spec: TensorSpec, array: Array, top_k: int) -> Array:
    classify = model.manifest.classify if model.manifest is not None else None
    labels = model.labels if classify is not None and classify.output == spec.name else ()
    return classification(array, top_k, labels, batchable=model.signature.batchable)


def _tell(parameters: Any, receipt: Receipt) -> None:
    """The receipt as response parameters, since tritonclient shows no metadata."""
    parameters["headrace_queue_ms"].double_param = receipt.queue_ms
    parameters["headrace_engine_ms"].double_param = receipt.engine_ms
    parameters["headrace_engine_share_ms"].double_param = receipt.engine_share_ms
    parameters["headrace_batch_rows"].int64_param = receipt.batch_rows
    parameters["headrace_padding_ratio"].double_param = receipt.padding_ratio

"""Models as the Open Inference Protocol describes them: metadata, configuration, statistics, index."""

from typing import Final

from engines.backends import MODEL_FILE
from engines.base import TensorSpec
from headrace.inference import open_inference_pb2 as pb
from services.chassis.errors import invalid_argument, quote
from services.chassis.model_stats import ModelStats, Tally
from services.chassis.models import LoadedModel

PLATFORMS: Final = {"onnxruntime": "onnxruntime_onnx", "tensorrt": "tensorrt_plan", "fake": "headrace_fake"}


def metadata(model: LoadedModel, versions: list[str]) -> pb.ModelMetadataResponse:
    """The tensors of a model, rows included."""
    answer = pb.ModelMetadataResponse(
        name=model.name, versions=versions, platform=PLATFORMS.get(model.backend, model.backend)
    )
    for specs, tensors in ((model.signature.inputs, answer.inputs), (model.signature.outputs, answer.outputs)):
        for spec in specs:
            tensors.add(name=spec.name, datatype=spec.datatype, shape=_dims(spec.shape))
    manifest = model.manifest
    if manifest is not None:
        facts = {"summary": manifest.summary, "licence": manifest.licence, "tasks": ",".join(manifest.tasks)}
        for key, value in facts.items():
            answer.properties[key] = value
    return answer


def config(model: LoadedModel) -> pb.ModelConfig:
    """How a model is served; dimensions are without the rows, as Triton's clients expect."""
    batchable, manifest = model.signature.batchable, model.manifest
    gpu = model.backend == "tensorrt"
    answer = pb.ModelConfig(
        name=model.name,
        platform=PLATFORMS.get(model.backend, model.backend),
        backend=model.backend,
        max_batch_size=manifest.batching.max_rows if batchable and manifest is not None else 0,
        default_model_filename=MODEL_FILE,
    )
    answer.version_policy.all.SetInParent()
    answer.model_transaction_policy.decoupled = False
    kind = pb.ModelInstanceGroup.KIND_GPU if gpu else pb.ModelInstanceGroup.KIND_CPU
    answer.instance_group.add(name=model.name, count=model.engines, kind=kind)
    if batchable:
        answer.dynamic_batching.max_queue_delay_microseconds = 0
    for spec in model.signature.inputs:
        answer.input.add(
            name=spec.name, data_type=_data_type(spec), format=_format(model, spec), dims=_inner(spec, batchable)
        )
    for spec in model.signature.outputs:
        classify = manifest.classify if manifest is not None else None
        labels = classify.labels if classify is not None and classify.output == spec.name else ""
        answer.output.add(
            name=spec.name, data_type=_data_type(spec), dims=_inner(spec, batchable), label_filename=labels
        )
    return answer


def statistics(model: LoadedModel) -> pb.ModelStatistics:
    """What one version did since it was loaded; joining and cutting tensors is part of the engine's time."""
    stats: ModelStats = model.stats
    answer = pb.ModelStatistics(
        name=model.name,
        version=model.version,
        last_inference=stats.last_inference,
        inference_count=stats.rows,
        execution_count=stats.executions,
    )
    costs = answer.inference_stats
    pairs = (
        (costs.success, stats.success),
        (costs.fail, stats.fail),
        (costs.queue, stats.queue),
        (costs.compute_infer, stats.engine),
        (costs.compute_input, Tally(stats.success.count)),
        (costs.compute_output, Tally(stats.success.count)),
    )
    for duration, tally in pairs:
        _fill(duration, tally)
    for rows, tally in sorted(stats.batches.items()):
        batch = answer.batch_stats.add(batch_size=rows)
        _fill(batch.compute_infer, tally)
        _fill(batch.compute_input, Tally(tally.count))
        _fill(batch.compute_output, Tally(tally.count))
    return answer


def index(models: list[LoadedModel], *, ready: bool) -> pb.RepositoryIndexResponse:
    """Every version of every model; `ready`: only those that serve."""
    answer = pb.RepositoryIndexResponse()
    for model in models:
        if not ready or model.state == "READY":
            answer.models.add(name=model.name, version=model.version, state=model.state, reason=model.reason)
    return answer


def repository_target(request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> tuple[str, str]:
    """The model and the version ("" = none named) that a repository call is about. Raises INVALID_ARGUMENT.

    Of Triton's parameters `unload_dependents` means nothing here; files and configurations are not taken by rpc.
    """
    if request.repository_name:
        raise invalid_argument("repository_name", "must be empty: there is one repository")
    if not request.model_name:
        raise invalid_argument("model_name", "is empty, must name a model: RepositoryIndex lists them")
    version = ""
    for name, parameter in request.parameters.items():
        if name == "version" and parameter.WhichOneof("parameter_choice") == "string_param":
            version = parameter.string_param
        elif name != "unload_dependents":
            problem = "is not taken: put files into the model repository; 'version', a string_param, chooses one"
            raise invalid_argument(f"parameters[{quote(name)}]", problem)
    return request.model_name, version


def _fill(duration: pb.StatisticDuration, tally: Tally) -> None:
    duration.count, duration.ns = tally.count, int(tally.seconds * 1e9)


def _dims(shape: tuple[int | str, ...]) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in shape]


def _inner(spec: TensorSpec, batchable: bool) -> list[int]:
    return _dims(spec.shape[1:] if batchable else spec.shape)


def _data_type(spec: TensorSpec) -> pb.DataType.ValueType:
    return pb.DataType.Value("TYPE_STRING" if spec.datatype == "BYTES" else f"TYPE_{spec.datatype}")


def _format(model: LoadedModel, spec: TensorSpec) -> pb.ModelInput.Format.ValueType:
    image = model.manifest.image if model.manifest is not None else None
    if image is None or image.input != spec.name:
        return pb.ModelInput.FORMAT_NONE
    return pb.ModelInput.FORMAT_NCHW if image.layout == "NCHW" else pb.ModelInput.FORMAT_NHWC

"""A manifest against the model that it describes: tensors, picture sizes, labels."""

from pathlib import Path

from engines import reader_check, recommender_check
from engines.backends import tensor_spec
from engines.base import Engine, TensorSpec
from engines.manifest import FILE_NAME, Image, Manifest
from engines.sections.text import IDS, TOKEN_INPUTS, TextInput
from engines.signatures import mismatch, shown, zeros
from engines.strict_toml import ConfigError

_TOKEN_DATATYPES = ("INT64", "INT32")
_IMAGE_DATATYPES = ("FP32", "FP16", "UINT8")


def check(manifest: Manifest, version_folder: Path, engine: Engine) -> tuple[str, ...]:
    """Return the class labels, which may be none. Raises ConfigError, or EngineError when a trial run fails."""
    path = version_folder.parent / FILE_NAME
    inputs = {spec.name: spec for spec in engine.signature.inputs}
    outputs = {spec.name: spec for spec in engine.signature.outputs}
    for field, declared, found in (
        ("tensors.inputs", manifest.tensors.inputs, engine.signature.inputs),
        ("tensors.outputs", manifest.tensors.outputs, engine.signature.outputs),
    ):
        problem = mismatch([tensor_spec(tensor) for tensor in declared], found) if declared else ""
        if problem:
            raise ConfigError(path, field, problem)
    if manifest.image is not None:
        _check_image(manifest.image, _named(path, "image.input", manifest.image.input, inputs), path)
    if manifest.text is not None:
        _check_text(manifest.text, inputs, path)
        if not manifest.text.encoder:
            _check_tokenizer(version_folder, manifest.text.tokenizer, path)
    recommender_check.check(manifest, version_folder.parent, engine.signature)
    reader_check.check(manifest, version_folder.parent, engine.signature)
    if manifest.embed is not None:
        pooled = manifest.text is not None and manifest.text.pooling != "none"
        _vector(path, "embed.output", manifest.embed.output, outputs, or_tokens=pooled)
    if manifest.rerank is not None:
        _vector(path, "rerank.output", manifest.rerank.output, outputs)
    if manifest.classify is None:
        return ()
    spec = _vector(path, "classify.output", manifest.classify.output, outputs)
    classes = spec.shape[1] if isinstance(spec.shape[1], int) else _measured(engine, spec)
    return _labels(version_folder, manifest.classify.labels, path, classes)


def _named(path: Path, field: str, name: str, tensors: dict[str, TensorSpec]) -> TensorSpec:
    if name not in tensors:
        raise ConfigError(path, field, f"is '{name}'", f"but the model has {', '.join(tensors) or 'none'}")
    return tensors[name]


def _vector(
    path: Path, field: str, name: str, tensors: dict[str, TensorSpec], *, or_tokens: bool = False
) -> TensorSpec:
    spec = _named(path, field, name, tensors)
    if len(spec.shape) != 2 and not (or_tokens and len(spec.shape) == 3):
        raise ConfigError(path, field, f"'{name}' has shape {shown(spec)}", "must have two axes: rows and values")
    return spec


def _check_text(text: TextInput, inputs: dict[str, TensorSpec], path: Path) -> None:
    """Token ids as the service makes them, or the embeddings of another model."""
    if text.encoder:
        found = list(inputs.values())
        if len(found) != 1 or found[0].datatype != "FP32" or len(found[0].shape) != 2:
            shapes = ", ".join(f"'{spec.name}' {spec.datatype} {shown(spec)}" for spec in found)
            raise ConfigError(path, "text.encoder", f"the model takes {shapes}", "must take one FP32 [rows, values]")
        return
    unknown = sorted(inputs.keys() - set(TOKEN_INPUTS))
    if unknown or IDS not in inputs:
        allowed = f"must take '{IDS}' and at most {', '.join(TOKEN_INPUTS[1:])} beside it"
        raise ConfigError(path, "text", f"the model takes {', '.join(inputs) or 'nothing'}", allowed)
    for spec in inputs.values():
        if spec.datatype not in _TOKEN_DATATYPES or len(spec.shape) != 2:
            allowed = "must be INT64 or INT32 with two axes: rows and tokens"
            raise ConfigError(path, "text", f"'{spec.name}' is {spec.datatype} {shown(spec)}", allowed)


def _check_tokenizer(version_folder: Path, name: str, path: Path) -> None:
    from tokenizers import Tokenizer  # noqa: PLC0415 - models of pictures and sound need none.

    file = _beside(version_folder, name)
    if file is None:
        raise ConfigError(path, "text.tokenizer", f"there is no file '{name}'", f"put it in {version_folder}")
    try:
        Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:
        # The library raises bare Exceptions.
        raise ConfigError(file, "", f"is no tokenizer file: {str(error)[:200]}") from error


def _check_image(image: Image, spec: TensorSpec, path: Path) -> None:
    if spec.datatype not in _IMAGE_DATATYPES:
        allowed = f"must be one of {', '.join(_IMAGE_DATATYPES)}"
        raise ConfigError(path, "image.input", f"'{spec.name}' is {spec.datatype}", allowed)
    wanted = (3, image.height, image.width) if image.layout == "NCHW" else (image.height, image.width, 3)
    fits = len(spec.shape) == 4 and all(
        isinstance(found, str) or found == size for size, found in zip(wanted, spec.shape[1:], strict=True)
    )
    if not fits:
        problem = f"{image.width} x {image.height} pixels in {image.layout} are {[-1, *wanted]}"
        raise ConfigError(path, "image", problem, f"but '{spec.name}' takes {shown(spec)}")


def _measured(engine: Engine, spec: TensorSpec) -> int:
    return int(engine.run(zeros(engine.signature))[spec.name].shape[1])


def _beside(version_folder: Path, name: str) -> Path | None:
    """A file of the version, else of the model; None where there is none."""
    candidates = (version_folder / name, version_folder.parent / name)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _labels(version_folder: Path, name: str, path: Path, classes: int) -> tuple[str, ...]:
    file = _beside(version_folder, name)
    if file is None:
        raise ConfigError(path, "classify.labels", f"there is no file '{name}'", f"put it in {version_folder}")
    try:
        labels = tuple(line.strip() for line in file.read_text(encoding="utf-8").removesuffix("\n").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(file, "", f"cannot be read as UTF-8 text: {error}") from error
    if len(labels) != classes:
        raise ConfigError(file, "", f"has {len(labels)} lines", f"must have one for each of the {classes} classes")
    return labels

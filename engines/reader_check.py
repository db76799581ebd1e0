"""A reader of text lines against its manifest: tensors, and the file that names its characters."""

from pathlib import Path

from engines.base import Signature
from engines.manifest import FILE_NAME, Manifest
from engines.sections.reading import Recognition
from engines.signatures import shown
from engines.strict_toml import ConfigError


def check(manifest: Manifest, folder: Path, signature: Signature) -> None:
    """Raise ConfigError where the network or the characters are not what `[reader.recognition]` says."""
    if manifest.reader is None:
        return
    numbers, path, field = manifest.reader.recognition, folder / FILE_NAME, "reader.recognition"
    found = signature.inputs
    if [spec.name for spec in found] != [numbers.input] or found[0].datatype != "FP32" or len(found[0].shape) != 4:
        shapes = ", ".join(f"'{spec.name}' {spec.datatype} {shown(spec)}" for spec in found)
        allowed = f"must take one FP32 [rows, 3, height, width] named '{numbers.input}'"
        raise ConfigError(path, f"{field}.input", f"the model takes {shapes or 'nothing'}", allowed)
    outputs = {spec.name: spec for spec in signature.outputs}
    wanted = {"output": numbers.output} | ({"confidence": numbers.confidence} if numbers.confidence else {})
    for key, name in wanted.items():
        if name not in outputs:
            raise ConfigError(path, f"{field}.{key}", f"is '{name}'", f"but the model has {', '.join(outputs)}")
    axes = 2 if numbers.confidence else 3
    output = outputs[numbers.output]
    if len(output.shape) != axes:
        allowed = "must have rows and steps" if axes == 2 else "must have rows, steps and classes"
        raise ConfigError(path, f"{field}.output", f"'{output.name}' has shape {shown(output)}", allowed)
    count, classes = len(characters(folder, numbers)), output.shape[-1]
    if axes == 3 and isinstance(classes, int) and count != classes - 1:
        allowed = f"must have one for each of the {classes} classes but the first, which is the blank"
        raise ConfigError(folder / numbers.characters, "", f"has {count} lines", allowed)


def characters(folder: Path, numbers: Recognition) -> tuple[str, ...]:
    """The characters of a reader's folder, one a line, in the order of the classes from 1 on. Raises ConfigError."""
    path = folder / numbers.characters
    try:
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise ConfigError(path, "", f"cannot be read: {error.strerror}", "put the list of characters there") from error
    except UnicodeDecodeError as error:
        raise ConfigError(path, "", f"is not UTF-8 text (byte {error.start})") from error
    found = tuple(line.removesuffix("\r") for line in lines)
    if "" in found:
        raise ConfigError(path, "", f"line {found.index('') + 1} is empty", "each must hold a character")
    return found

"""TOML files read into frozen pydantic models. A mistake is one line: file, field, what is wrong, what is allowed."""

import difflib
import json
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from pydantic_core import ErrorDetails

ModelT = TypeVar("ModelT", bound=pydantic.BaseModel)

_MAX_ALLOWED_KEYS = 12


class ConfigError(Exception):
    """A file that cannot be used. `field` is dotted, `allowed` says what would be right; both may be empty."""

    def __init__(self, path: Path | str, field: str, problem: str, allowed: str = "") -> None:
        self.path, self.field, self.problem, self.allowed = Path(path), field, problem, allowed
        place = f"{path}: {field}: " if field else f"{path}: "
        super().__init__(place + problem + (f", {allowed}" if allowed else ""))


def load(path: Path, model: type[ModelT]) -> ModelT:
    """Read and check the file. Raises ConfigError."""
    return validate(read(path), model, path)


def read(path: Path) -> dict[str, Any]:
    """Read the file without checking its keys. Raises ConfigError when it is missing, unreadable or no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(path, "", "there is no such file") from None
    except OSError as error:
        raise ConfigError(path, "", f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(path, "", f"is not UTF-8 text (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, "", f"is not valid TOML: {error}") from error


def validate(data: Mapping[str, Any], model: type[ModelT], source: Path | str, *, strict: bool = True) -> ModelT:
    """Check `data` as if it had been read from `source`. `strict` off takes "8" for 8. Raises ConfigError."""
    try:
        # The JSON door is strict about types, yet takes a list for a tuple and a string for a Path, as TOML needs.
        return model.model_validate_json(json.dumps(data, default=str), strict=strict)
    except pydantic.ValidationError as error:
        # A misspelt key is also a missing one: name the misspelling.
        first = min(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
        raise _config_error(first, model, source) from None


def _config_error(detail: ErrorDetails, model: type[pydantic.BaseModel], source: Path | str) -> ConfigError:
    location = detail["loc"]
    field = _dotted(location)
    if detail["type"] == "extra_forbidden":
        return ConfigError(source, field, "unknown key", _suggest(str(location[-1]), _keys(model, location[:-1])))
    if detail["type"] == "missing":
        return ConfigError(source, field, "is missing", "and is required")
    problem = detail["msg"].removeprefix("Value error, ")
    if problem.startswith("Input should be"):
        return ConfigError(
            source, field, f"is {_shown(detail['input'])}", "must be" + problem.removeprefix("Input should be")
        )
    return ConfigError(source, field, problem[:1].lower() + problem[1:])


def _dotted(location: Sequence[int | str]) -> str:
    if location and location[-1] in ("bool", "float", "int", "str"):
        location = location[:-1]  # Which arm of a union was tried says nothing to the reader.
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _suggest(key: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1)
    if nearest:
        return f"did you mean '{nearest[0]}'?"
    listed = ", ".join(known[:_MAX_ALLOWED_KEYS])
    return f"known here: {listed}" if listed else "none is allowed here"


def _keys(model: type[pydantic.BaseModel], location: Sequence[int | str]) -> list[str]:
    """Return the keys that the model takes at `location`."""
    annotation: Any = model
    for part in location:
        annotation = _step(annotation, part)
    found = _model_in(annotation)
    return [] if found is None else [field.alias or name for name, field in found.model_fields.items()]


def _step(annotation: Any, part: int | str) -> Any:
    found = _model_in(annotation)
    if found is not None:
        fields = {field.alias or name: field.annotation for name, field in found.model_fields.items()}
        return fields.get(str(part))
    for arm in _arms(annotation):
        arguments = typing.get_args(arm)
        if arguments:
            return arguments[-1] if typing.get_origin(arm) in (dict, Mapping) else arguments[0]
    return None


def _model_in(annotation: Any) -> type[pydantic.BaseModel] | None:
    for arm in _arms(annotation):
        if isinstance(arm, type) and issubclass(arm, pydantic.BaseModel):
            return arm
    return None


def _arms(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)

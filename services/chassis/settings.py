"""headrace.toml, read once at the root of a process: flag > environment (HEADRACE_*) > file > default."""

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from engines import strict_toml
from engines.strict_toml import ConfigError
from services.chassis.addresses import parse
from services.chassis.default_models import DEFAULTS, PULL, tasks_of

#: The services that this version has; `headrace serve NAME` runs one.
SERVICES: Final = ("vision", "nlp", "recommendation", "speech")

FILE_NAME: Final = "headrace.toml"
_PREFIX: Final = "HEADRACE_"


def _address_or_empty(value: str) -> str:
    return value and parse(value)


def _tcp_address(value: str) -> str:
    if value.startswith("unix:"):
        raise ValueError("this address is TCP: 'host:port'")
    return parse(value)


Address = Annotated[str, AfterValidator(parse)]
OptionalAddress = Annotated[str, AfterValidator(_address_or_empty)]
TcpAddress = Annotated[str, AfterValidator(_tcp_address)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GatewaySettings(_Section):
    """The one port of the mesh. Sizes in bytes, times in seconds."""

    listen: TcpAddress = "127.0.0.1:8080"
    max_message_bytes: int = Field(default=16 * 1024 * 1024, ge=1024, le=1 << 30)
    default_deadline_seconds: Seconds = 30.0
    max_deadline_seconds: Seconds = 300.0
    envoy: str = ""
    concurrency: int = Field(default=1, ge=1, le=256)

    @model_validator(mode="after")
    def _default_within_maximum(self) -> "GatewaySettings":
        if self.default_deadline_seconds > self.max_deadline_seconds:
            raise ValueError(
                f"default_deadline_seconds is {self.default_deadline_seconds:g}, at most max_deadline_seconds "
                f"({self.max_deadline_seconds:g}) is allowed"
            )
        return self


class ModelsSettings(_Section):
    """The model repository, and the zoo models that `headrace up` fetches into it."""

    directory: str = "models"
    pull: tuple[str, ...] = PULL


class ServiceSettings(_Section):
    """One service: its processes, its share of the cores, its models and the limits of one call.

    `max_items`: images, texts or documents; `max_text_bytes`: one text; `max_candidates`: items to rank;
    `max_streams`: live speech streams of one process. `defaults`: task or role -> model of calls that name none.
    """

    replicas: int = Field(default=1, ge=0, le=256)
    cores: int = Field(default=2, ge=1, le=1024)
    models: tuple[str, ...] = ()
    listen: OptionalAddress = ""
    endpoints: tuple[Address, ...] = ()
    max_items: int = Field(default=1024, ge=1, le=1_000_000)
    max_pixels: int = Field(default=50_000_000, ge=1, le=10**10)
    max_text_bytes: int = Field(default=1 << 20, ge=1, le=1 << 30)
    max_audio_seconds: int = Field(default=7200, ge=1, le=1_000_000)
    max_candidates: int = Field(default=10_000, ge=1, le=1_000_000)
    max_streams: int = Field(default=64, ge=1, le=100_000)
    defaults: dict[str, str] = Field(default_factory=dict)

    def address(self, replica: int) -> str:
        """Where replica number `replica` listens; "" = a private UNIX socket that the supervisor chooses."""
        host, _, port = self.listen.rpartition(":")
        if not self.listen:
            return ""
        if host == "unix" or self.listen.startswith("unix:"):
            return self.listen if replica == 0 else f"{self.listen}.{replica}"
        return f"{host}:{int(port) + replica}" if int(port) else self.listen


class TracingSettings(_Section):
    """`max_traces_per_second`: roots that the gateway samples by itself; callers' sampled traces are always kept."""

    max_traces_per_second: float = Field(default=20.0, ge=0, le=1e6)
    otlp_endpoint: OptionalAddress = ""
    keep_spans: int = Field(default=20_000, ge=100, le=10_000_000)


class MetricsSettings(_Section):
    """Where the Prometheus page of the mesh is served; port 0 = any free one."""

    listen: TcpAddress = "127.0.0.1:0"


class LoggingSettings(_Section):
    """The least severe level that is written."""

    level: Literal["debug", "info", "warning", "error"] = "info"


def _default_services() -> dict[str, ServiceSettings]:
    return {service: ServiceSettings(defaults=dict(models)) for service, models in DEFAULTS.items()}


def _known_services(services: dict[str, ServiceSettings]) -> dict[str, ServiceSettings]:
    for name, section in services.items():
        _check_known("service", name, SERVICES)
        for key in section.defaults:
            _check_known(f"key in {name}.defaults", key, tuple(tasks_of(name)))
    return services


def _check_known(kind: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        raise ValueError(f"unknown {kind} '{name}', {hint}")


class Settings(_Section):
    """All of headrace.toml. Paths in it are relative to the file; only the services that it names are started."""

    gateway: GatewaySettings = GatewaySettings()
    models: ModelsSettings = ModelsSettings()
    services: Annotated[dict[str, ServiceSettings], AfterValidator(_known_services)] = Field(
        default_factory=_default_services
    )
    tracing: TracingSettings = TracingSettings()
    metrics: MetricsSettings = MetricsSettings()
    logging: LoggingSettings = LoggingSettings()

    _file: Path | None = PrivateAttr(default=None)
    _root: Path = PrivateAttr(default_factory=Path.cwd)

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        flags: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> "Settings":
        """Read the file `path` (None: ./headrace.toml where there is one, else defaults only).

        `flags` maps dotted keys ("gateway.listen") to values from the command line. Raises ConfigError.
        """
        file = path if path is not None else (Path(FILE_NAME) if Path(FILE_NAME).is_file() else None)
        data = {} if file is None else strict_toml.read(file)
        settings = strict_toml.validate(data, cls, file or "defaults")
        overrides = [*_from_environment(os.environ if environ is None else environ), *_from_flags(flags or {})]
        if overrides:
            settings = _override(settings, overrides)
        if file is not None:
            settings._file = file.absolute()
            settings._root = file.absolute().parent
        return settings

    @property
    def file(self) -> Path | None:
        """The file that was read; None when there was none."""
        return self._file

    @property
    def root(self) -> Path:
        """The folder of the file, or the working directory: what relative paths are relative to."""
        return self._root

    @property
    def state_dir(self) -> Path:
        """Where a running mesh keeps its logs and its mesh.json."""
        return self._root / ".headrace"

    @property
    def models_dir(self) -> Path:
        """The model repository as an absolute path."""
        return self._root / Path(self.models.directory).expanduser()


def _keys(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every scalar or list key of the file that a variable may set, with its type."""
    for name, info in model.model_fields.items():
        kind, here = info.annotation, (*prefix, name)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(kind, here)
        elif name == "services":
            for service in SERVICES:
                yield from _keys(ServiceSettings, (*here, service))
        elif get_origin(kind) is not dict:
            yield here, kind


_VARIABLES: Final = {_PREFIX + "_".join(key).upper(): (key, kind) for key, kind in _keys(Settings)}
_SECTIONS: Final = tuple(f"{_PREFIX}{name.upper()}_" for name in Settings.model_fields)


@dataclass(frozen=True, slots=True)
class _Override:
    key: tuple[str, ...]
    value: object
    source: str


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Override]:
    for name in sorted(environ):
        if not name.startswith(_SECTIONS):
            continue
        if name not in _VARIABLES:
            near = difflib.get_close_matches(name, _VARIABLES, n=1)
            raise ConfigError("environment", name, "unknown variable", f"did you mean {near[0]}?" if near else "")
        key, kind = _VARIABLES[name]
        text = environ[name]
        listed = get_origin(kind) is tuple
        yield _Override(key, [part for part in map(str.strip, text.split(",")) if part] if listed else text, name)


def _from_flags(flags: Mapping[str, object]) -> Iterator[_Override]:
    for key, value in flags.items():
        yield _Override(tuple(key.split(".")), value, "command line")


def _override(settings: Settings, overrides: list[_Override]) -> Settings:
    data = settings.model_dump(mode="json")
    for override in overrides:
        place = data
        for part in override.key[:-1]:
            place = place.setdefault(part, {})
        place[override.key[-1]] = override.value
    try:
        return strict_toml.validate(data, Settings, "", strict=False)
    except ConfigError as error:
        # The file alone was right: whoever set the field at fault, or else the last to set anything, is to blame.
        culprits = [override for override in overrides if error.field.startswith(".".join(override.key))]
        source = (culprits or overrides)[-1].source
        raise ConfigError(source, error.field, error.problem, error.allowed) from None

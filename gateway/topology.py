"""What the mesh looks like at one instant: services, where they listen, which models they hold; pure values."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

CONTROL = "control"
"""Name of the control process's cluster: it answers for the mesh as a whole and for everything no service owns."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_UNIX_PATH_LIMIT = 107  # bytes that fit sockaddr_un.sun_path


class TopologyError(ValueError):
    """A snapshot that cannot be rendered; the text names the field, what was wrong and what is allowed."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a process listens: a UNIX socket (`path`) or TCP (`host` and `port`)."""

    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str, name: str = "address") -> "Address":
        """Read "unix:/path" or "host:port" ("[::1]:9000" for IPv6); raise TopologyError naming `name`."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if not path.startswith("/") or len(path.encode()) > _UNIX_PATH_LIMIT:
                raise TopologyError(
                    f"{name}: {text!r} is not an absolute socket path of at most {_UNIX_PATH_LIMIT} bytes"
                )
            return cls(path=path)
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise TopologyError(f'{name}: {text!r} is neither "unix:/path" nor "host:port"')
        return cls(host=host, port=int(port))

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServiceNode:
    """One service of the mesh and its replicas.

    `name`: its cluster ("vision"); `rpc_services`: full names of the typed gRPC services it answers
    ("headrace.vision.v1.VisionService"); `endpoints`: "unix:/path" or "host:port", one a replica.
    """

    name: str
    rpc_services: tuple[str, ...]
    endpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Edge:
    """What the one public port allows. Sizes in bytes, times in seconds.

    `max_in_flight`: calls Envoy holds open to one service before it refuses by itself; above every queue cap, so that
    the batcher refuses first. `cors_origins`: web origins whose pages may call ("*": any, always without cookies).
    The port of `listen` may be 0: the kernel chooses.
    """

    listen: str = "127.0.0.1:8080"
    max_message_bytes: int = 16 * 1024 * 1024
    max_deadline_seconds: float = 300.0
    max_in_flight: int = 16384
    max_connections: int = 4096
    cors_origins: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the gateway's configuration is rendered from; immutable, compared by value.

    `models`: model name -> name of the service that holds it; `control`: address of the control process;
    `internal`: "unix:/path" of the listener over which services call each other, "" = none;
    `sample_ratio`: share of the calls without a sampled caller for which the gateway starts a trace, 0..1.
    """

    services: tuple[ServiceNode, ...]
    control: str
    models: Mapping[str, str] = field(default_factory=dict)
    internal: str = ""
    sample_ratio: float = 1.0
    edge: Edge = field(default_factory=Edge)

    def __post_init__(self) -> None:
        """Freeze the mapping and refuse what could not be rendered."""
        object.__setattr__(self, "models", MappingProxyType(dict(self.models)))
        _check(self)


def _check(snapshot: Snapshot) -> None:
    _check_addresses(snapshot)
    if not 0.0 <= snapshot.sample_ratio <= 1.0:
        raise TopologyError(f"sample_ratio: {snapshot.sample_ratio} is not within 0..1")
    if snapshot.edge.max_message_bytes < 1024:
        raise TopologyError(f"edge.max_message_bytes: {snapshot.edge.max_message_bytes} is below 1024")
    owners: dict[str, str] = {}
    names: set[str] = set()
    for service in snapshot.services:
        if not _NAME.fullmatch(service.name) or service.name == CONTROL or service.name in names:
            raise TopologyError(
                f"services: {service.name!r} must be unique, lower case, start with a letter and not be {CONTROL!r}"
            )
        names.add(service.name)
        for index, endpoint in enumerate(service.endpoints):
            Address.parse(endpoint, f"services.{service.name}.endpoints[{index}]")
        for rpc_service in service.rpc_services:
            if owners.setdefault(rpc_service, service.name) != service.name:
                raise TopologyError(f"services.{service.name}: {rpc_service} already belongs to {owners[rpc_service]}")
    for model, owner in snapshot.models.items():
        if owner not in names:
            raise TopologyError(f"models.{model}: no service named {owner!r}; known: {', '.join(sorted(names))}")


def _check_addresses(snapshot: Snapshot) -> None:
    Address.parse(snapshot.control, "control")
    Address.parse(snapshot.edge.listen, "edge.listen")
    if snapshot.internal and not Address.parse(snapshot.internal, "internal").path:
        raise TopologyError(f"internal: {snapshot.internal!r} is no UNIX socket; it must not be reached from outside")

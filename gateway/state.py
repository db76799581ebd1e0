"""What the control process knows of the services at this moment; those who need to know are told of every change."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from gateway.runfile import ServiceStatus
from gateway.topology import ServiceNode

READY = "READY"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One version of a model as a service's repository index has it."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Replica:
    """One endpoint of a service: whether its health says SERVING, and what it last said of its models.

    `settled`: the models that it found when it started are loaded or given up. `extensions`: the Open Inference
    extensions it announces. `problem`: why it cannot be reached, "" when it can.
    """

    serving: bool = False
    settled: bool = False
    models: tuple[ModelEntry, ...] = ()
    extensions: tuple[str, ...] = ()
    problem: str = "not reached yet"


@dataclass(slots=True)
class MeshState:
    """The services of the mesh and their replicas, by endpoint."""

    nodes: tuple[ServiceNode, ...]
    names: Mapping[str, str] = field(default_factory=dict)
    """Endpoint -> process name, for people; an endpoint without one stands for itself."""
    remembered: Mapping[str, Replica] = field(default_factory=dict)
    """Endpoint -> what an earlier process knew of it."""
    _replicas: dict[str, Replica] = field(default_factory=dict)
    _version: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        """Begin with what is remembered, every replica away."""
        endpoints = [endpoint for node in self.nodes for endpoint in node.endpoints]
        self._replicas = {endpoint: self.remembered.get(endpoint, Replica()) for endpoint in endpoints}

    async def update(self, endpoint: str, **changes: object) -> None:
        """Replace what is known of a replica, and tell those who wait if that is new."""
        replica = replace(self._replicas[endpoint], **changes)  # type: ignore[arg-type]  # checked by the callers' tests
        if replica != self._replicas[endpoint]:
            self._replicas[endpoint] = replica
            async with self._changed:
                self._version += 1
                self._changed.notify_all()

    async def changes(self) -> AsyncIterator[None]:
        """Yield once at the start, then after every change; changes in quick succession may be one."""
        seen = -1
        while True:
            async with self._changed:
                while self._version == seen:
                    await self._changed.wait()
                seen = self._version
            yield

    def serving(self, service: str) -> bool:
        """Say whether a replica of the service answers."""
        node = next(node for node in self.nodes if node.name == service)
        return any(self._replicas[endpoint].serving for endpoint in node.endpoints)

    def all_serving(self) -> bool:
        """Say whether every service answers, be it only that a model is still loading."""
        return all(self.serving(node.name) for node in self.nodes)

    def ready(self) -> bool:
        """Say whether every service answers and has loaded what it found when it started."""
        return all(
            any(self._replicas[endpoint].serving and self._replicas[endpoint].settled for endpoint in node.endpoints)
            for node in self.nodes
        )

    def models(self) -> Mapping[str, str]:
        """Return model name -> service that holds it; also of models not loaded, which must be routed to say why."""
        found: dict[str, str] = {}
        for node in self.nodes:
            for entry in self._entries(node):
                found.setdefault(entry.name, node.name)
        return MappingProxyType(found)

    def index(self) -> list[ModelEntry]:
        """Return every model version of the mesh, READY if any replica has it READY; by name, then version."""
        best: dict[tuple[str, str], ModelEntry] = {}
        for node in self.nodes:
            for entry in self._entries(node):
                known = best.get((entry.name, entry.version))
                if known is None or (entry.state == READY and known.state != READY):
                    best[entry.name, entry.version] = entry
        return [best[key] for key in sorted(best)]

    def extensions(self) -> list[str]:
        """Return the Open Inference extensions that every reached service announces."""
        announced = [set(replica.extensions) for replica in self._replicas.values() if replica.extensions]
        return sorted(set.intersection(*announced)) if announced else []

    def endpoints(self, service: str) -> Sequence[str]:
        """Return the addresses of the service's replicas, those that serve first."""
        node = next(node for node in self.nodes if node.name == service)
        return sorted(node.endpoints, key=lambda endpoint: not self._replicas[endpoint].serving)

    def statuses(self) -> tuple[ServiceStatus, ...]:
        """Return every replica for the status file."""
        return tuple(
            ServiceStatus(
                name=self.names.get(endpoint, node.name),
                endpoint=endpoint,
                ready=replica.serving and replica.settled,
                models={entry.name: entry.state for entry in replica.models},
                problem=replica.problem if not replica.serving else "" if replica.settled else "it loads its models",
            )
            for node in self.nodes
            for endpoint, replica in ((endpoint, self._replicas[endpoint]) for endpoint in node.endpoints)
        )

    def _entries(self, node: ServiceNode) -> list[ModelEntry]:
        return [entry for endpoint in node.endpoints for entry in self._replicas[endpoint].models]

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


@dataclass(frozen=True, slots=True)
class Held:
    """One model: the service that holds it, and what each of its replicas, by endpoint, says of its versions."""

    service: str
    replicas: Mapping[str, tuple[ModelEntry, ...]]


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
        return [best[key] for key in sorted(best, key=lambda key: (key[0], version_number(key[1])))]

    def held(self, name: str) -> Held | None:
        """Return who holds a model and how it stands there; None when nobody does."""
        service = self.models().get(name)
        node = next((node for node in self.nodes if node.name == service), None)
        if node is None:
            return None
        replicas = {
            endpoint: tuple(entry for entry in self._replicas[endpoint].models if entry.name == name)
            for endpoint in node.endpoints
        }
        return Held(node.name, MappingProxyType(replicas))

    def reached(self, endpoint: str) -> bool:
        """Say whether a replica answers."""
        return self._replicas[endpoint].serving

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
                models=_states(replica.models),
                problem=replica.problem if not replica.serving else "" if replica.settled else "it loads its models",
            )
            for node in self.nodes
            for endpoint, replica in ((endpoint, self._replicas[endpoint]) for endpoint in node.endpoints)
        )

    def _entries(self, node: ServiceNode) -> list[ModelEntry]:
        return [entry for endpoint in node.endpoints for entry in self._replicas[endpoint].models]


def version_number(version: str) -> int:
    """Return a version as the number that versions are ordered by; 0 for a model without one."""
    return int(version) if version.isdecimal() else 0


def _states(entries: tuple[ModelEntry, ...]) -> dict[str, str]:
    """Each model by its best version: READY while any is, else as the highest one stands."""
    states: dict[str, str] = {}
    for entry in entries:
        if states.get(entry.name) != READY:
            states[entry.name] = entry.state
    return states

"""grpc.health.v1: Check, Watch and List over named components, of which draining is one."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2

from services.chassis import errors
from services.chassis.call import Call
from services.chassis.errors import ServiceError

_DRAINING: Final = "draining"


def _service_with_list() -> ServiceDescriptor:
    """The installed health.proto with List, which is newer than it, in a pool of its own."""
    proto = descriptor_pb2.FileDescriptorProto()
    health_pb2.DESCRIPTOR.CopyToProto(proto)
    service = proto.service[0]
    if all(method.name != "List" for method in service.method):
        proto.message_type.add(name="HealthListRequest")
        response = proto.message_type.add(name="HealthListResponse")
        entry = response.nested_type.add(name="StatusesEntry", options={"map_entry": True})
        kinds = descriptor_pb2.FieldDescriptorProto
        optional = kinds.LABEL_OPTIONAL
        value = ".grpc.health.v1.HealthCheckResponse"
        entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=optional)
        entry.field.add(name="value", number=2, type=kinds.TYPE_MESSAGE, label=optional, type_name=value)
        response.field.add(
            name="statuses",
            number=1,
            type=kinds.TYPE_MESSAGE,
            label=kinds.LABEL_REPEATED,
            type_name=".grpc.health.v1.HealthListResponse.StatusesEntry",
        )
        package = ".grpc.health.v1."
        service.method.add(
            name="List", input_type=f"{package}HealthListRequest", output_type=f"{package}HealthListResponse"
        )
    pool: Any = descriptor_pool.DescriptorPool()  # AddSerializedFile has no types.
    service_descriptor: ServiceDescriptor = pool.AddSerializedFile(proto.SerializeToString()).services_by_name["Health"]
    return service_descriptor


SERVICE: Final = _service_with_list()
_METHODS = SERVICE.methods_by_name
CheckResponse: Any = message_factory.GetMessageClass(_METHODS["Check"].output_type)
ListResponse: Any = message_factory.GetMessageClass(_METHODS["List"].output_type)


class Health:
    """The health of one process and of each service in it; a servicer of grpc.health.v1.Health.

    A service is SERVING when every component that concerns it is well and the process does not drain; "" means all.
    """

    def __init__(self, services: Iterable[str] = ()) -> None:
        self._unwell: dict[str, set[str]] = {"": set()}
        self._changed = asyncio.Event()
        self._closed = False
        self.add(services)

    def add(self, services: Iterable[str]) -> None:
        """Answer for these services too (full names)."""
        for service in services:
            self._unwell.setdefault(service, set())

    def set(self, component: str, well: bool, services: Iterable[str] | None = None) -> None:
        """Say how a component is; it concerns `services`, or all of them. What is never said is well."""
        names = self._unwell.keys() if services is None else ["", *services]
        for name in names:
            unwell = self._unwell.setdefault(name, set())
            (unwell.discard if well else unwell.add)(component)
        self._notify()

    def drain(self) -> None:
        """Everything is NOT_SERVING from now on."""
        self.set(_DRAINING, well=False)

    def close(self) -> None:
        """End every Watch once it has told the latest, so that the server can stop."""
        self._closed = True
        self._notify()

    def status(self, service: str) -> int:
        """The ServingStatus number of a service; SERVICE_UNKNOWN (3) for a name never added."""
        unwell = self._unwell.get(service)
        statuses = health_pb2.HealthCheckResponse
        if unwell is None:
            return int(statuses.SERVICE_UNKNOWN)
        return int(statuses.NOT_SERVING if unwell else statuses.SERVING)

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(self, request: Any, call: Call) -> Any:  # noqa: N802, ARG002  # The names and shapes of the rpc.
        """Answer NOT_FOUND for an unknown service."""
        status = self.status(request.service)
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            raise _unknown_service(request.service, self._unwell)
        return CheckResponse(status=status)

    async def Watch(self, requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:  # noqa: N802, ARG002
        """Send the status now and after each change; SERVICE_UNKNOWN for a service that may come later."""
        sent = None
        async for request in requests:
            while True:
                changed, status = self._changed, self.status(request.service)
                if status != sent:
                    yield CheckResponse(status=status)
                    sent = status
                if self._closed:
                    return
                await changed.wait()

    async def List(self, request: Any, call: Call) -> Any:  # noqa: N802, ARG002
        """Every service with its status."""
        return ListResponse(statuses={name: CheckResponse(status=self.status(name)) for name in self._unwell})


def _unknown_service(name: str, known: Iterable[str]) -> ServiceError:
    return errors.not_found("service", name, [service for service in known if service])

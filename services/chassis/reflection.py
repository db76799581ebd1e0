"""grpc.reflection under v1 and v1alpha: one wire format, two names, and descriptors from any pool."""

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, text_format
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

from services.chassis import rpc

_ALPHA: Final[ServiceDescriptor] = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
_V1: Final = "grpc.reflection.v1.ServerReflection"


def reflection_handlers(services: Sequence[ServiceDescriptor], policy: rpc.Policy) -> list[grpc.GenericRpcHandler]:
    """Handlers that describe `services` and reflection itself, whichever pools their files live in."""
    names = [*(service.full_name for service in services), _ALPHA.full_name, _V1]
    pool = _Symbols(merged_pool([service.file for service in services]))
    servicer = aio.ReflectionServicer(names, pool=pool)
    return [rpc.handlers(_ALPHA, servicer, policy), rpc.handlers(_ALPHA, servicer, policy, name=_V1)]


class _Symbols:
    """A pool that also finds methods and fields, which clients such as grpcurl ask for by their full names."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802  # As DescriptorPool calls it.
        """Raise KeyError for a symbol that is not there."""
        try:
            found: FileDescriptor = self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            parent, _, name = symbol.rpartition(".")
            found = self._pool.FindFileContainingSymbol(parent)
            if not _has_member(self._pool, parent, name):
                raise
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def _has_member(pool: Any, parent: str, name: str) -> bool:
    for find, members in (("FindServiceByName", "methods_by_name"), ("FindMessageTypeByName", "fields_by_name")):
        with contextlib.suppress(KeyError):
            return name in getattr(getattr(pool, find)(parent), members)
    return False


def merged_pool(files: Iterable[FileDescriptor]) -> Any:
    """One DescriptorPool with these files, all that they import, error details and reflection.

    Of two files with one name the first is kept, so a service's file comes before others that import an older one.
    """
    pool: Any = DescriptorPool()  # Its methods have no types.
    added: set[str] = set()

    def add(file: FileDescriptor) -> None:
        if file.name in added:
            return
        added.add(file.name)
        for imported in file.dependencies:
            add(imported)
        pool.AddSerializedFile(file.serialized_pb)

    for file in (*files, error_details_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        add(file)
    pool.Add(_v1_file())
    return pool


def _v1_file() -> descriptor_pb2.FileDescriptorProto:
    """The file of reflection v1, which differs from v1alpha's in its names alone."""
    proto = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(proto)
    text = text_format.MessageToString(proto).replace("v1alpha", "v1")
    return text_format.Parse(text, descriptor_pb2.FileDescriptorProto())

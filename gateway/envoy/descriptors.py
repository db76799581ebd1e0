"""What the published protos say that Envoy must know: descriptor sets, REST paths, streams, where a model is named."""

import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor, ServiceDescriptor
from google.rpc import error_details_pb2

import headrace
from headrace.inference import open_inference_pb2

OPEN_INFERENCE: str = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_PRIVATE = "headrace.control."  # answered on the control socket only, never through the gateway
_MODEL_FIELDS = ("model_name", "name")


@cache
def typed_services() -> tuple[ServiceDescriptor, ...]:
    """Return every typed service of the published API, running or not, by full name."""
    found: dict[str, ServiceDescriptor] = {}
    for module in pkgutil.walk_packages(headrace.__path__, "headrace."):
        if module.name.endswith("_pb2") and not module.name.startswith((_PRIVATE, "headrace.inference.")):
            file: FileDescriptor = import_module(module.name).DESCRIPTOR
            found.update({service.full_name: service for service in file.services_by_name.values()})
    return tuple(found[name] for name in sorted(found))


@cache
def typed_descriptor_set() -> bytes:
    """Return a serialised FileDescriptorSet of the typed services and of the error details, with all imports."""
    return _descriptor_set([*(service.file for service in typed_services()), error_details_pb2.DESCRIPTOR])


@cache
def open_inference_descriptor_set() -> bytes:
    """Return a serialised FileDescriptorSet of the Open Inference Protocol."""
    return _descriptor_set([open_inference_pb2.DESCRIPTOR])


@cache
def model_fields() -> Mapping[str, str]:
    """Return, for each Open Inference method that is about one model, the request field that names it.

    Keys are method names ("ModelInfer"), values "model_name" or "name".
    """
    service = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    found = {}
    for method in service.methods:
        named = [name for name in _MODEL_FIELDS if name in method.input_type.fields_by_name]
        if named:
            found[method.name] = named[0]
    return MappingProxyType(found)


def streams(service: ServiceDescriptor) -> tuple[str, ...]:
    """Return the names of the methods of `service` that stream in either direction."""
    return tuple(method.name for method in service.methods if method.client_streaming or method.server_streaming)


@cache
def rest_paths() -> Mapping[str, str]:
    """Return the HTTP method of every REST path that the protos declare ("/v1/vision:classify" -> "POST")."""
    paths: dict[str, str] = {}
    for service in typed_services():
        for method in service.methods:
            paths.update(_bindings(method))
    return MappingProxyType(paths)


def _bindings(method: MethodDescriptor) -> Iterable[tuple[str, str]]:
    options = method.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return
    rule = options.Extensions[annotations_pb2.http]
    for binding in (rule, *rule.additional_bindings):
        verb = binding.WhichOneof("pattern")
        if verb in {"get", "put", "post", "delete", "patch"}:
            yield getattr(binding, verb), verb.upper()


def _descriptor_set(files: Iterable[FileDescriptor]) -> bytes:
    result = descriptor_pb2.FileDescriptorSet()
    seen: set[str] = set()

    def add(file: FileDescriptor) -> None:
        if file.name in seen:
            return
        seen.add(file.name)
        for dependency in file.dependencies:  # Envoy's pool wants a file after what it imports
            add(dependency)
        result.file.add().ParseFromString(file.serialized_pb)

    for file in files:
        add(file)
    return result.SerializeToString(deterministic=True)

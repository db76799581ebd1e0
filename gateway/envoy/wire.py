"""Small builders of the protobuf values that every Envoy resource is made of."""

from envoy.config.core.v3 import address_pb2, config_source_pb2, extension_pb2
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from xds.type.v3 import typed_struct_pb2

from gateway.topology import Address

_TYPE_PREFIX = "type.googleapis.com/"


def packed(message: Message) -> any_pb2.Any:
    """Return `message` inside an Any, serialised deterministically so that equal resources compare equal."""
    wrapped = any_pb2.Any()
    wrapped.Pack(message, deterministic=True)
    return wrapped


def packed_fields(type_name: str, fields: dict[str, int]) -> any_pb2.Any:
    """Return an Any for a type that the installed xds-protos does not know: its JSON fields in a TypedStruct."""
    value = Struct()
    value.update(fields)
    return packed(typed_struct_pb2.TypedStruct(type_url=_TYPE_PREFIX + type_name, value=value))


def extension(name: str, config: Message) -> extension_pb2.TypedExtensionConfig:
    """Return a named, typed extension."""
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=packed(config))


def duration(seconds: float) -> duration_pb2.Duration:
    """Return `seconds` (at least 0) as a Duration; 0 means "no limit" in most of Envoy's timeouts."""
    value = duration_pb2.Duration()
    value.FromNanoseconds(round(seconds * 1e9))
    return value


def socket_address(address: Address) -> address_pb2.Address:
    """Return Envoy's form of a UNIX or TCP address."""
    if address.path:
        return address_pb2.Address(pipe=address_pb2.Pipe(path=address.path))
    return address_pb2.Address(socket_address=address_pb2.SocketAddress(address=address.host, port_value=address.port))


def over_ads() -> config_source_pb2.ConfigSource:
    """Return the source of everything dynamic: the one ADS stream."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(), resource_api_version=config_source_pb2.ApiVersion.V3
    )

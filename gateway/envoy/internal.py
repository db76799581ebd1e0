"""The internal listener: a private socket over which the services of the mesh call each other.

Same routes by path and by model, same deadlines, limits, errors and traces as on the public port. It differs in what it
trusts: headers that steer the mesh pass, and a call is traced if the call that it is made for is.
"""

from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from google.protobuf.wrappers_pb2 import UInt32Value

from gateway.envoy.listeners import connection_manager
from gateway.envoy.routes import BODY_FILTER, FIELD_FILTER, INTERNAL_ROUTES, LUA_FILTER
from gateway.envoy.wire import packed, socket_address
from gateway.topology import Address, Edge

LISTENER = "internal"
# The services speak gRPC only.
_FILTERS = frozenset((BODY_FILTER, FIELD_FILTER, LUA_FILTER, "envoy.filters.http.router"))


def internal_listener(address: str, edge: Edge) -> listener_pb2.Listener:
    """Return the listener at `address` ("unix:/path"), with the limits of `edge`."""
    manager = connection_manager(edge)
    manager.stat_prefix = LISTENER
    manager.rds.route_config_name = INTERNAL_ROUTES
    manager.use_remote_address.value = False
    # One connection carries everything that one service asks of all the others.
    manager.http2_protocol_options.max_concurrent_streams.value = edge.max_in_flight
    filters = [item for item in manager.http_filters if item.name in _FILTERS]
    del manager.http_filters[:]
    manager.http_filters.extend(filters)
    del manager.early_header_mutation_extensions[:]
    network = listener_components_pb2.Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=packed(manager)
    )
    return listener_pb2.Listener(
        name=LISTENER,
        address=socket_address(Address.parse(address)),
        filter_chains=[listener_components_pb2.FilterChain(filters=[network])],
        per_connection_buffer_limit_bytes=UInt32Value(value=1 << 20),
    )

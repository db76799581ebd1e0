"""The file Envoy starts from: who it is, where its control process is, and what it must survive. The rest is ADS."""

from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.core.v3 import base_pb2, config_source_pb2, grpc_service_pb2
from envoy.config.overload.v3 import overload_pb2
from envoy.extensions.resource_monitors.downstream_connections.v3 import downstream_connections_pb2
from envoy.extensions.resource_monitors.fixed_heap.v3 import fixed_heap_pb2
from google.protobuf import json_format

from gateway.envoy.clusters import control_cluster
from gateway.envoy.wire import duration, over_ads, packed, socket_address
from gateway.topology import CONTROL, Address, Snapshot

NODE_ID = "headrace-gateway"
_MAX_HEAP_BYTES = 2 << 30
_RUNTIME = {
    # An expired deadline is DEADLINE_EXCEEDED, not UNAVAILABLE, which would invite a retry.
    "envoy.reloadable_features.grpc_timeout_returns_deadline_exceeded": True,
    # A trace is looked for right after the call; five seconds (the default) is too long for that.
    "tracing.opentelemetry.flush_interval_ms": 200,
    "tracing.opentelemetry.min_flush_spans": 64,
}


def bootstrap(snapshot: Snapshot, admin: str, node: str = NODE_ID) -> bootstrap_pb2.Bootstrap:
    """Return Envoy's bootstrap. `admin`: "unix:/path" or "127.0.0.1:0"; never a public address."""
    result = bootstrap_pb2.Bootstrap(
        node=base_pb2.Node(id=node, cluster="headrace"),
        admin=bootstrap_pb2.Admin(address=socket_address(Address.parse(admin, "admin"))),
        overload_manager=_overload_manager(snapshot.edge.max_connections),
        # Metrics are read by a scrape of the admin page; nothing needs a fresher roll-up.
        stats_flush_interval=duration(5.0),
    )
    result.static_resources.clusters.append(control_cluster(snapshot.control, snapshot.edge.max_in_flight))
    resources = result.dynamic_resources
    resources.ads_config.api_type = config_source_pb2.ApiConfigSource.GRPC
    resources.ads_config.transport_api_version = config_source_pb2.ApiVersion.V3
    resources.ads_config.grpc_services.append(control_service())
    # After a restart of the control process Envoy is back on it within a second; by default it may take thirty.
    back_off = resources.ads_config.grpc_services[0].envoy_grpc.retry_policy.retry_back_off
    back_off.base_interval.CopyFrom(duration(0.1))
    back_off.max_interval.CopyFrom(duration(1.0))
    resources.ads_config.set_node_on_first_message_only = True
    resources.lds_config.CopyFrom(over_ads())
    resources.cds_config.CopyFrom(over_ads())
    layer = result.layered_runtime.layers.add(name="headrace")
    layer.static_layer.update(_RUNTIME)
    return result


def bootstrap_json(snapshot: Snapshot, admin: str, node: str = NODE_ID) -> str:
    """Return the bootstrap as the JSON text that `envoy -c` reads from a file named `*.json`."""
    return str(json_format.MessageToJson(bootstrap(snapshot, admin, node), preserving_proto_field_name=True))


def control_service() -> grpc_service_pb2.GrpcService:
    """Return how Envoy itself calls the control process (ADS, OTLP)."""
    return grpc_service_pb2.GrpcService(envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=CONTROL))


def _overload_manager(max_connections: int) -> overload_pb2.OverloadManager:
    manager = overload_pb2.OverloadManager(refresh_interval=duration(0.25))
    heap = manager.resource_monitors.add(name="envoy.resource_monitors.fixed_heap")
    heap.typed_config.CopyFrom(packed(fixed_heap_pb2.FixedHeapConfig(max_heap_size_bytes=_MAX_HEAP_BYTES)))
    connections = manager.resource_monitors.add(name="envoy.resource_monitors.global_downstream_max_connections")
    connections.typed_config.CopyFrom(
        packed(
            downstream_connections_pb2.DownstreamConnectionsConfig(max_active_downstream_connections=max_connections)
        )
    )
    for action, threshold in (
        ("envoy.overload_actions.shrink_heap", 0.90),
        ("envoy.overload_actions.stop_accepting_requests", 0.95),
    ):
        trigger = manager.actions.add(name=action).triggers.add(name=heap.name)
        trigger.threshold.value = threshold
    return manager

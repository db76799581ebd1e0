"""Clusters: how Envoy reaches a service's replicas, watches their health and bounds the damage of a bad one."""

from ipaddress import ip_address

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import address_pb2, health_check_pb2, protocol_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.extensions.load_balancing_policies.least_request.v3 import least_request_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from gateway.envoy.wire import duration, extension, over_ads, packed, socket_address
from gateway.topology import CONTROL, Address, ServiceNode

_CONNECT_TIMEOUT = 1.0
# Far above one for each worker and replica: a call that finds no connection and may open none would wait, not fail.
_MAX_CONNECTIONS = UInt32Value(value=4096)
_HEALTH_INTERVAL = 0.5  # a replica that drains takes calls for longer than two of them
_HEALTH_INTERVAL_DOWN = 0.25  # a replica that came back is used again within this time
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def service_cluster(service: ServiceNode, max_in_flight: int) -> cluster_pb2.Cluster:
    """Return the cluster of one service; its endpoints come by EDS, or inline where a host is a DNS name."""
    cluster = _cluster(service.name, max_in_flight)
    if _needs_dns(service):
        cluster.type = cluster_pb2.Cluster.STRICT_DNS
        cluster.dns_lookup_family = cluster_pb2.Cluster.V4_PREFERRED  # "localhost" is rarely listened to on ::1
        cluster.load_assignment.CopyFrom(load_assignment(service))
    else:
        cluster.type = cluster_pb2.Cluster.EDS
        cluster.eds_cluster_config.eds_config.CopyFrom(over_ads())
    cluster.health_checks.append(_health_check())
    cluster.ignore_health_on_host_removal = True  # a replica taken away is gone, though it may still look healthy
    cluster.outlier_detection.CopyFrom(_outlier_detection())
    return cluster


def control_cluster(control: str, max_in_flight: int) -> cluster_pb2.Cluster:
    """Return the static cluster of the control process: ADS, OTLP, and the calls that no service owns."""
    cluster = _cluster(CONTROL, max_in_flight)
    cluster.type = cluster_pb2.Cluster.STATIC
    cluster.load_assignment.CopyFrom(load_assignment(ServiceNode(CONTROL, (), (control,))))
    return cluster


def service_endpoints(service: ServiceNode) -> endpoint_pb2.ClusterLoadAssignment | None:
    """Return the EDS resource of one service, None where its cluster carries the endpoints itself."""
    return None if _needs_dns(service) else load_assignment(service)


def has_alternatives(service: ServiceNode) -> bool:
    """Say whether a call that one replica did not take could go to another; a DNS name may stand for several."""
    return len(service.endpoints) > 1 or _needs_dns(service)


def load_assignment(service: ServiceNode) -> endpoint_pb2.ClusterLoadAssignment:
    """Return the replicas of a service as one locality."""
    endpoints = [
        endpoint_components_pb2.LbEndpoint(
            endpoint=endpoint_components_pb2.Endpoint(address=socket_address(Address.parse(text)))
        )
        for text in service.endpoints
    ]
    locality = endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=endpoints)
    return endpoint_pb2.ClusterLoadAssignment(cluster_name=service.name, endpoints=[locality] if endpoints else [])


def _cluster(name: str, max_in_flight: int) -> cluster_pb2.Cluster:
    limit = UInt32Value(value=max_in_flight)
    thresholds = circuit_breaker_pb2.CircuitBreakers.Thresholds(
        max_connections=_MAX_CONNECTIONS, max_pending_requests=limit, max_requests=limit, max_retries=limit
    )
    cluster = cluster_pb2.Cluster(
        name=name,
        connect_timeout=duration(_CONNECT_TIMEOUT),
        circuit_breakers=circuit_breaker_pb2.CircuitBreakers(thresholds=[thresholds]),
        common_lb_config=cluster_pb2.Cluster.CommonLbConfig(
            # Never send calls to replicas known to be bad, the caller gets UNAVAILABLE at once instead.
            healthy_panic_threshold=percent_pb2.Percent(value=0),
            # By default the workers hear of changed health up to a second late.
            update_merge_window=duration(0),
        ),
        upstream_connection_options=cluster_pb2.UpstreamConnectionOptions(
            tcp_keepalive=address_pb2.TcpKeepalive(
                keepalive_probes=UInt32Value(value=3),
                keepalive_time=UInt32Value(value=10),
                keepalive_interval=UInt32Value(value=5),
            )
        ),
    )
    policy = cluster.load_balancing_policy.policies.add()
    # Two random choices, not a full scan: that would offer a retry the same dead, hence idle, replica again and again.
    policy.typed_extension_config.CopyFrom(
        extension("envoy.load_balancing_policies.least_request", least_request_pb2.LeastRequest())
    )
    cluster.typed_extension_protocol_options[_HTTP_OPTIONS].CopyFrom(packed(_http2(max_in_flight)))
    return cluster


def _http2(max_in_flight: int) -> http_protocol_options_pb2.HttpProtocolOptions:
    options = http_protocol_options_pb2.HttpProtocolOptions()
    http2 = options.explicit_http_config.http2_protocol_options
    # One connection per worker and replica carries everything; a second one would only cost the Python side.
    http2.max_concurrent_streams.value = max_in_flight
    # Rarer than the 10 s at which gRPC servers begin to punish pings, and only while calls are open.
    http2.connection_keepalive.CopyFrom(protocol_pb2.KeepaliveSettings(interval=duration(30), timeout=duration(10)))
    return options


def _health_check() -> health_check_pb2.HealthCheck:
    return health_check_pb2.HealthCheck(
        timeout=duration(1.0),
        interval=duration(_HEALTH_INTERVAL),
        no_traffic_interval=duration(_HEALTH_INTERVAL),
        no_traffic_healthy_interval=duration(_HEALTH_INTERVAL),
        unhealthy_interval=duration(_HEALTH_INTERVAL_DOWN),
        unhealthy_edge_interval=duration(_HEALTH_INTERVAL_DOWN),
        unhealthy_threshold=UInt32Value(value=2),
        healthy_threshold=UInt32Value(value=1),
        grpc_health_check=health_check_pb2.HealthCheck.GrpcHealthCheck(),
    )


def _outlier_detection() -> outlier_detection_pb2.OutlierDetection:
    """Eject a replica that passes its health check and yet fails every call, never the last half of a cluster.

    Liveness is the health check's business. A run of 20 failures without one success in between is beyond what
    callers' own short deadlines (504) or unimplemented methods (501) produce on a working replica.
    """
    return outlier_detection_pb2.OutlierDetection(
        interval=duration(1.0),
        base_ejection_time=duration(5.0),
        max_ejection_time=duration(30.0),
        max_ejection_percent=UInt32Value(value=50),
        always_eject_one_host=BoolValue(value=False),
        split_external_local_origin_errors=True,
        consecutive_5xx=UInt32Value(value=20),
        enforcing_consecutive_5xx=UInt32Value(value=100),
        consecutive_local_origin_failure=UInt32Value(value=5),
        enforcing_consecutive_local_origin_failure=UInt32Value(value=100),
        enforcing_success_rate=UInt32Value(value=0),
        enforcing_local_origin_success_rate=UInt32Value(value=0),
    )


def _needs_dns(service: ServiceNode) -> bool:
    return any(not (address := Address.parse(text)).path and not _is_ip(address.host) for text in service.endpoints)


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True

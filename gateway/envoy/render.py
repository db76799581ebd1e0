"""From a snapshot of the topology to everything Envoy is told."""

from gateway.ads import Resources
from gateway.envoy.clusters import service_cluster, service_endpoints
from gateway.envoy.listeners import edge_listener
from gateway.envoy.routes import route_configuration
from gateway.topology import Snapshot


def render(snapshot: Snapshot) -> Resources:
    """Return the resources of the snapshot; equal snapshots give equal resources."""
    endpoints = [service_endpoints(service) for service in snapshot.services]
    return Resources.of(
        clusters=[service_cluster(service, snapshot.edge.max_in_flight) for service in snapshot.services],
        endpoints=[assignment for assignment in endpoints if assignment is not None],
        listeners=[edge_listener(snapshot.edge)],
        routes=[route_configuration(snapshot)],
    )

"""From a snapshot of the topology to everything Envoy is told."""

from gateway.ads import Resources
from gateway.envoy.clusters import service_cluster, service_endpoints
from gateway.envoy.internal import internal_listener
from gateway.envoy.listeners import edge_listener
from gateway.envoy.routes import internal_route_configuration, route_configuration
from gateway.topology import Snapshot


def render(snapshot: Snapshot) -> Resources:
    """Return the resources of the snapshot; equal snapshots give equal resources."""
    endpoints = [service_endpoints(service) for service in snapshot.services]
    listeners, routes = [edge_listener(snapshot.edge)], [route_configuration(snapshot)]
    if snapshot.internal:
        listeners.append(internal_listener(snapshot.internal, snapshot.edge))
        routes.append(internal_route_configuration(snapshot))
    return Resources.of(
        clusters=[service_cluster(service, snapshot.edge.max_in_flight) for service in snapshot.services],
        endpoints=[assignment for assignment in endpoints if assignment is not None],
        listeners=listeners,
        routes=routes,
    )

"""From settings to what runs where: names, addresses and sockets of a mesh's processes."""

from pathlib import Path

from gateway.topology import Edge, ServiceNode, TopologyError
from services.chassis.settings import Settings

CONTROL_PROCESS = "control"
ENVOY_PROCESS = "envoy"
BOOTSTRAP_FILE = "envoy-bootstrap.json"

RPC_SERVICES: dict[str, tuple[str, ...]] = {
    "vision": ("headrace.vision.v1.VisionService",),
    "speech": ("headrace.speech.v1.SpeechService",),
    "nlp": ("headrace.nlp.v1.NlpService",),
    "recommendation": ("headrace.recommendation.v1.RecommendationService",),
}
"""Which typed gRPC services each service answers."""


def control_address(run_dir: Path) -> str:
    """Where the control process listens."""
    return f"unix:{run_dir}/control.sock"


def internal_address(run_dir: Path) -> str:
    """Where Envoy listens for the calls of the services to each other."""
    return f"unix:{run_dir}/mesh.sock"


def admin_address(run_dir: Path) -> str:
    """Where Envoy's admin interface listens."""
    return f"unix:{run_dir}/envoy.sock"


def local_replicas(settings: Settings, run_dir: Path) -> dict[str, str]:
    """Return process name -> listen address of every replica that this mesh starts itself."""
    replicas = {}
    for service, section in settings.services.items():
        for index in range(section.replicas):
            name = f"{service}-{index}"
            address = section.address(index) or f"unix:{run_dir}/{name}.sock"
            if address.endswith(":0"):
                raise TopologyError(f'services.{service}.listen: {address!r} has no port; give one, or "" for a socket')
            replicas[name] = address
    return replicas


def service_nodes(settings: Settings, run_dir: Path) -> tuple[ServiceNode, ...]:
    """Return the services of the mesh, each with its local and remote endpoints."""
    local = local_replicas(settings, run_dir)
    nodes = []
    for service, section in settings.services.items():
        own = tuple(local[f"{service}-{index}"] for index in range(section.replicas))
        nodes.append(ServiceNode(service, RPC_SERVICES[service], own + section.endpoints))
    return tuple(nodes)


def edge(settings: Settings) -> Edge:
    """Return what the public port allows."""
    gateway = settings.gateway
    return Edge(
        listen=gateway.listen,
        max_message_bytes=gateway.max_message_bytes,
        max_deadline_seconds=gateway.max_deadline_seconds,
    )

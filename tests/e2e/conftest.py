"""One mesh with the real networks for every end-to-end test: `headrace up` over models pulled as a user pulls them."""

import io
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from services.chassis.default_models import DEFAULTS
from tests.mesh import RunningMesh, running_mesh, zoo_models


def default_services(cores: int = 2) -> dict[str, dict[str, Any]]:
    """The sections of headrace.toml that start what a mesh starts by default."""
    sections: dict[str, dict[str, Any]] = {}
    for service, models in DEFAULTS.items():
        sections[f"services.{service}"] = {"cores": cores}
        sections[f"services.{service}.defaults"] = dict(models)
    return sections


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test to ask for the zoo waits for what trains, on a machine that may be busy."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(480))


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo_models(tmp_path_factory.mktemp("e2e") / "models")


@pytest.fixture(scope="session")
def mesh(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """Every service with every model of the zoo."""
    with running_mesh(tmp_path_factory.mktemp("mesh"), zoo, default_services()) as running:
        yield running


@pytest.fixture
def channel(mesh: RunningMesh) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(mesh.gateway, options=options) as opened:
        yield opened


@pytest.fixture(scope="session")
def photographs() -> dict[str, bytes]:
    """Two photographs as their photographers sent them, JPEG of 640x427."""
    folder = resources.files("sklearn") / "datasets" / "images"
    return {name: (folder / name).read_bytes() for name in ("china.jpg", "flower.jpg")}


@pytest.fixture(scope="session")
def crops(photographs: dict[str, bytes]) -> list[bytes]:
    """64 different pictures cut out of the two photographs."""
    made = []
    for content in photographs.values():
        photograph = Image.open(io.BytesIO(content)).convert("RGB")
        for step in range(32):
            buffer = io.BytesIO()
            photograph.crop((4 * step, 2 * step, 480 + 4 * step, 320 + 2 * step)).save(buffer, "JPEG", quality=85)
            made.append(buffer.getvalue())
    return made

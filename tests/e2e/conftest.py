"""One mesh with the real networks for every end-to-end test: `headrace up` over models pulled as a user pulls them."""

import io
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import grpc
import pytest
from PIL import Image

from tests.mesh import RunningMesh, running_mesh, zoo_models

DEFAULTS = {"classify": "efficientnet_lite0", "embed": "efficientnet_lite0"}


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zoo_models(tmp_path_factory.mktemp("e2e") / "models")


@pytest.fixture(scope="session")
def mesh(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    settings = {"services.vision": {"cores": 2}, "services.vision.defaults": DEFAULTS}
    with running_mesh(tmp_path_factory.mktemp("mesh"), zoo, settings) as running:
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

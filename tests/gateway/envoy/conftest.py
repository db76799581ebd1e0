import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.gateway.envoy.harness import Mesh, running_mesh


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_mesh() -> AsyncIterator[Mesh]:
    # Not tmp_path: the paths of UNIX sockets must be short.
    with tempfile.TemporaryDirectory(prefix="headrace-test-") as folder:
        async with running_mesh(Path(folder)) as mesh:
            yield mesh


@pytest_asyncio.fixture(loop_scope="session")
async def mesh(shared_mesh: Mesh) -> AsyncIterator[Mesh]:
    """Return the one mesh of the session, as it was at its start."""
    yield shared_mesh
    await shared_mesh.restore()

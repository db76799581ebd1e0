import pytest

from engines.zoo.artifacts import Artifacts, default_cache
from engines.zoo.errors import ArtifactError
from engines.zoo.pull import pull
from engines.zoo.registry import recipe


@pytest.fixture(scope="session")
def zoo_models(tmp_path_factory):
    """A repository with the real EfficientNet-Lite0, pulled as `headrace models pull` does."""
    models = tmp_path_factory.mktemp("zoo")
    try:
        pull(recipe("efficientnet_lite0"), models, Artifacts(default_cache()))
    except ArtifactError as error:
        pytest.skip(f"the real network cannot be fetched here: {error}")
    return models


@pytest.fixture(scope="session")
def reading_models(tmp_path_factory):
    """A repository with the real reader and its detector."""
    models = tmp_path_factory.mktemp("readers")
    try:
        for name in ("ppocr_v6_detector", "ppocr_v6"):
            pull(recipe(name), models, Artifacts(default_cache()))
    except ArtifactError as error:
        pytest.skip(f"the real networks cannot be fetched here: {error}")
    return models

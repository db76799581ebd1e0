import pytest

from engines.zoo.artifacts import Artifacts, default_cache
from engines.zoo.errors import ArtifactError
from engines.zoo.pull import pull
from engines.zoo.registry import recipe


@pytest.fixture(scope="session")
def zoo_texts(tmp_path_factory):
    """A repository with the real text models, pulled as `headrace models pull` does."""
    models = tmp_path_factory.mktemp("zoo")
    try:
        for name in ("all_minilm_l6_v2", "clothing_sentiment"):
            pull(recipe(name), models, Artifacts(default_cache()))
    except ArtifactError as error:
        pytest.skip(f"the real networks cannot be fetched here: {error}")
    return models

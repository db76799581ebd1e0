from pathlib import Path

import pytest

from engines.zoo.errors import ArtifactError
from tests.mesh import zoo_models


@pytest.fixture(scope="session")
def zoo_texts(tmp_path_factory) -> Path:
    """A repository with the real text models, pulled as `headrace models pull` does."""
    try:
        return zoo_models(tmp_path_factory.mktemp("texts") / "models", ("all_minilm_l6_v2", "clothing_sentiment"))
    except ArtifactError as error:
        pytest.skip(f"the real networks cannot be fetched here: {error}")

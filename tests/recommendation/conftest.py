from pathlib import Path

import pytest

from engines.recommender import dataset, folders, install, training
from engines.recommender.training import Trained
from engines.zoo.artifacts import Artifacts, default_cache
from engines.zoo.errors import ArtifactError
from engines.zoo.pull import pull
from engines.zoo.registry import with_needs
from tests.recommendation import shop
from tests.recommendation.shop import Shop


@pytest.fixture(scope="session")
def own_shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return shop.make(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def trained(own_shop: Shop) -> Trained:
    """A recommender trained on the shop, which knows all of its interactions."""
    return training.train(dataset.read(own_shop.interactions, own_shop.items), lambda *_: None)


@pytest.fixture(scope="session")
def shop_models(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the recommender `shop`; tests do not write into it."""
    models = tmp_path_factory.mktemp("recommender") / "models"
    install.install(folders.own_folders(trained, "shop"), models)
    return models


@pytest.fixture(scope="session")
def movielens_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the real MovieLens recommender, pulled (and so trained) as `headrace models pull` does."""
    models = tmp_path_factory.mktemp("zoo")
    try:
        for recipe in with_needs(["movielens"]):
            pull(recipe, models, Artifacts(default_cache()))
    except ArtifactError as error:
        pytest.skip(f"the data set cannot be fetched here: {error}")
    return models

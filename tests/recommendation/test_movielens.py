"""The recommender of the zoo, trained on the real MovieLens 100k."""

import asyncio
import re
from pathlib import Path

import grpc
import numpy as np
import pytest

from engines.recommender.metrics import recall_and_ndcg
from engines.zoo.artifacts import Artifacts, default_cache
from engines.zoo.check import check
from engines.zoo.movielens import RECIPE, movielens
from engines.zoo.registry import recipe
from headrace.recommendation.v1 import recommendation_pb2 as pb
from tests.recommendation.test_servicer import call, ids
from tests.serving import serving

STATIC = Path(__file__).parents[2] / "engines/zoo/files/movielens"
DEFAULTS = {"services.recommendation.defaults": dict.fromkeys(("recommend", "rank", "similar_items"), "movielens")}


def figures(models):
    """Recall and NDCG of each line of the report."""
    lines = (models / "movielens/REPORT.txt").read_text().splitlines()
    found = [re.fullmatch(r"(\S.*?)\s+(0\.\d{3})\s+(0\.\d{3})\s+0\.\d{3}", line) for line in lines]
    return {match[1]: (float(match[2]), float(match[3])) for match in found if match}


@pytest.fixture(scope="module")
def held_out():
    """User -> (all films but the last, the last), from the ratings themselves."""
    files = Artifacts(default_cache()).files(RECIPE, lambda *_: None, lambda: None)
    found = movielens(*(files[pinned.path] for pinned in RECIPE.wheels[0].files))
    names = found.catalogue.ids
    histories = [[names[place] for place in found.choices.of(user)] for user in range(found.choices.users)]
    return dict(zip(found.user_ids, ((history[:-1], history[-1]) for history in histories), strict=True))


def test_the_whole_model_is_well_above_popularity_and_factors(movielens_models):
    found = figures(movielens_models)
    popularity, factors = found["popularity"], found["user and item factors"]
    whole = found["retrieval, then ranking network"]
    assert whole[0] > 2.5 * popularity[0]
    assert whole[1] > 2.5 * popularity[1]
    assert whole[0] > 1.5 * factors[0]
    assert whole[1] > 1.5 * factors[1]


@pytest.mark.parametrize("name", ["movielens", "movielens_retrieval"])
def test_each_network_computes_what_its_fixture_says(movielens_models, name):
    assert check(recipe(name), movielens_models).error < 1e-3


def test_the_card_has_the_figures_of_the_report(movielens_models):
    """They are the same on every machine, so that the card can state them."""
    card = (STATIC / "CARD.md").read_text()
    found = figures(movielens_models)
    assert len(found) == 4
    for name, (recall, ndcg) in found.items():
        assert f"| {name} | {recall:.3f} | {ndcg:.3f} |" in card


async def test_the_service_answers_what_the_report_says(movielens_models, held_out):
    """Every fourth user through the service, as a user and as a history: the held-out film among ten."""
    users = list(held_out)[::4]
    async with (
        serving("recommendation", movielens_models, DEFAULTS) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        asked = [pb.RecommendRequest(user_id=user, exclude_seen=True) for user in users]
        asked += [pb.RecommendRequest(history=held_out[user][0], exclude_seen=True) for user in users]
        turns = asyncio.Semaphore(16)

        async def answered(request):
            async with turns:
                return ids(await call(channel, request))

        answers = await asyncio.gather(*map(answered, asked))
        trending = ids(await call(channel, pb.RecommendRequest(page_size=100)))
    by_user, by_history = answers[: len(users)], answers[len(users) :]
    assert np.mean([one == other for one, other in zip(by_user, by_history, strict=True)]) > 0.99
    popular = [[film for film in trending if film not in set(held_out[user][0])][:10] for user in users]
    found = {}
    for name, lists in (("service", by_user), ("trending", popular)):
        targets = [held_out[user][1] for user in users]
        ranks = [films.index(film) if film in films else 10 for films, film in zip(lists, targets, strict=True)]
        found[name] = recall_and_ndcg(np.array(ranks))
    whole = figures(movielens_models)["retrieval, then ranking network"]
    assert found["service"] == pytest.approx(whole, abs=0.06)
    assert found["service"][0] > 2 * found["trending"][0]


async def test_500_candidates_take_one_engine_run(movielens_models):
    candidates = [str(film) for film in range(1, 501)]
    async with (
        serving("recommendation", movielens_models, DEFAULTS) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        batcher = served.host.resolve("movielens", "rank").batcher
        asked = call(channel, pb.RankRequest(user_id="1", item_ids=candidates))
        answer = await asked
        assert sorted(ids(answer), key=int) == candidates
        assert (batcher.stats().batches, batcher.stats().rows) == (1, 500)
        assert dict(await asked.initial_metadata())["headrace-batch-rows"] == "500"
        await asyncio.gather(*(call(channel, pb.RankRequest(user_id=str(n), item_ids=candidates)) for n in range(1, 9)))
        assert batcher.stats().rows == 9 * 500


async def test_films_of_a_kind_are_similar(movielens_models):
    async with (
        serving("recommendation", movielens_models, DEFAULTS) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        lion_king = await call(channel, pb.SimilarItemsRequest(item_id="71", page_size=5))
        titles = [found.title for found in lion_king.items]
    assert {"Aladdin (1992)", "Beauty and the Beast (1991)"} <= set(titles), titles

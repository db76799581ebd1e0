import asyncio
import shutil

import grpc
import numpy as np
import onnx
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from onnx import TensorProto, helper

from engines.recommender.served import load
from headrace.recommendation.v1 import recommendation_pb2 as pb
from tests.recommendation import shop
from tests.recommendation.shop import LENGTH, item
from tests.serving import serving

SERVICE = "/headrace.recommendation.v1.RecommendationService"
WRONG = ("INVALID_ARGUMENT", "INVALID_FIELD")
RESPONSES = {
    pb.RecommendRequest: ("Recommend", pb.RecommendResponse),
    pb.RankRequest: ("Rank", pb.RankResponse),
    pb.SimilarItemsRequest: ("SimilarItems", pb.SimilarItemsResponse),
}


def call(channel, request):
    method, response = RESPONSES[type(request)]
    return channel.unary_unary(
        f"{SERVICE}/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response.FromString,
    )(request)


async def refused(awaitable, code):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    assert caught.value.code() is code, caught.value.details()
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(caught.value).details[0].Unpack(info)
    return caught.value.details(), info.reason


def ids(answer):
    return [found.item_id for found in answer.items]


def falling(answer):
    scores = [found.score for found in answer.items]
    return scores == sorted(scores, reverse=True)


async def test_a_known_user_gets_what_comes_next_and_a_receipt(shop_models, own_shop):
    user, history = next(iter(own_shop.histories.items()))
    async with serving("recommendation", shop_models) as served, grpc.aio.insecure_channel(served.address) as channel:
        asked = call(channel, pb.RecommendRequest(user_id=user, exclude_seen=True))
        answer = await asked
        assert (answer.model.name, answer.model.version) == ("shop", "1")
        assert len(answer.items) == 10
        assert falling(answer)
        assert all(0 <= found.score <= 1 for found in answer.items)
        assert answer.items[0].title.startswith("Thing, no. ")
        assert not set(ids(answer)) & set(history)
        headers = dict(await asked.initial_metadata())
        assert headers["headrace-model"] == "shop@1"
        assert int(headers["headrace-batch-rows"]) > 10
        everything = await call(channel, pb.RecommendRequest(user_id=user, page_size=100))
        assert len(everything.items) == shop.ITEMS
        assert set(history) < set(ids(everything))
        rest = await call(channel, pb.RecommendRequest(user_id=user, page_size=100, exclude_seen=True))
        assert set(ids(rest)) == set(ids(everything)) - set(history)


async def test_a_history_decides_for_an_unknown_user(shop_models):
    """Who walks along the second aisle goes on there; unknown items are passed over."""
    walk = [item(LENGTH + place) for place in (2, 3, 4, 5)]
    async with serving("recommendation", shop_models) as served, grpc.aio.insecure_channel(served.address) as channel:
        plain = await call(channel, pb.RecommendRequest(history=walk, page_size=5, exclude_seen=True))
        assert item(LENGTH + 6) in ids(plain)[:2]
        assert sum(LENGTH <= int(name.split("-")[1]) < 2 * LENGTH for name in ids(plain)) >= 3
        mixed = ["", "nothing", *walk[:2], "item-999", *walk[2:]]
        for user in ("", "nobody"):
            same = await call(channel, pb.RecommendRequest(user_id=user, history=mixed, page_size=5, exclude_seen=True))
            assert ids(same) == ids(plain)


async def test_the_history_of_a_known_user_comes_after_what_is_stored(shop_models, own_shop):
    user, stored = next(iter(own_shop.histories.items()))
    fresh = [name for name in (item(place) for place in range(shop.ITEMS)) if name not in stored][:3]
    async with serving("recommendation", shop_models) as served, grpc.aio.insecure_channel(served.address) as channel:
        both = await call(channel, pb.RecommendRequest(user_id=user, history=fresh, exclude_seen=True, page_size=100))
        assert not set(ids(both)) & {*stored, *fresh}
        joined = await call(channel, pb.RecommendRequest(history=[*stored, *fresh], exclude_seen=True, page_size=100))
        assert both.items == joined.items
        again = await call(channel, pb.RecommendRequest(user_id=user, history=["unknown"], page_size=100))
        alone = await call(channel, pb.RecommendRequest(user_id=user, page_size=100))
        assert again.items == alone.items


async def test_nobody_in_particular_gets_what_is_trending(shop_models):
    tables = load(shop_models / "shop", "items.csv", "interactions.csv")
    async with serving("recommendation", shop_models) as served, grpc.aio.insecure_channel(served.address) as channel:
        asked = call(channel, pb.RecommendRequest(exclude_seen=True))
        answer = await asked
        assert ids(answer) == [tables.ids[place] for place in tables.trending[:10]]
        assert answer.items[0].score == 1.0
        assert falling(answer)
        headers = dict(await asked.initial_metadata())
        assert (headers["headrace-model"], headers["headrace-batch-rows"]) == ("shop@1", "0")


@pytest.mark.parametrize(("asked", "given"), [(0, 10), (1, 1), (100, 60), (101, 60), (2**31 - 1, 60)])
async def test_page_size(shop_models, asked, given):
    async with serving("recommendation", shop_models) as served, grpc.aio.insecure_channel(served.address) as channel:
        answer = await call(channel, pb.RecommendRequest(user_id="user-1", page_size=asked))
        assert len(answer.items) == given
        similar = await call(channel, pb.SimilarItemsRequest(item_id="item-1", page_size=asked))
        assert len(similar.items) == min(given, shop.ITEMS - 1)


async def test_candidates_are_ranked_once_each_and_unknown_ones_named(shop_models):
    candidates = ["item-3", "?", "item-40", "item-3", "item-18", "", "?", "item-40"]
    async with serving("recommendation", shop_models) as served, grpc.aio.insecure_channel(served.address) as channel:
        request = pb.RankRequest(history=[item(15), item(16), item(17)], item_ids=candidates)
        answer = await call(channel, request)
        assert ids(answer)[0] == "item-18"
        assert sorted(ids(answer)) == ["item-18", "item-3", "item-40"]
        assert list(answer.missing_item_ids) == ["?", ""]
        assert falling(answer)
        nothing = await call(channel, pb.RankRequest(user_id="user-2", item_ids=["?", "!"]))
        assert (list(nothing.items), list(nothing.missing_item_ids)) == ([], ["?", "!"])
        nobody = await call(channel, pb.RankRequest(item_ids=["item-3", "item-4"]))
        assert sorted(ids(nobody)) == ["item-3", "item-4"]


async def test_ranking_agrees_with_recommending(shop_models):
    everything = [item(place) for place in range(shop.ITEMS)]
    async with serving("recommendation", shop_models) as served, grpc.aio.insecure_channel(served.address) as channel:
        ranked = await call(channel, pb.RankRequest(user_id="user-3", item_ids=everything))
        recommended = await call(channel, pb.RecommendRequest(user_id="user-3", page_size=100))
        scores = {found.item_id: found.score for found in ranked.items}
        for found in recommended.items:
            assert found.score == pytest.approx(scores[found.item_id], abs=1e-5)


async def test_similar_items_are_of_the_same_aisle(shop_models):
    async with serving("recommendation", shop_models) as served, grpc.aio.insecure_channel(served.address) as channel:
        answer = await call(channel, pb.SimilarItemsRequest(item_id=item(7), page_size=4))
        assert item(7) not in ids(answer)
        assert all(int(name.split("-")[1]) < LENGTH for name in ids(answer))
        assert falling(answer)
        assert all(-1.001 <= found.score <= 1.001 for found in answer.items)


@pytest.mark.parametrize(
    ("request_", "code", "reason", "words"),
    [
        (pb.RecommendRequest(page_size=-1), *WRONG, "page_size: is -1; must be 0 (meaning 10)"),
        (pb.SimilarItemsRequest(item_id="item-1", page_size=-7), *WRONG, "page_size: is -7"),
        (pb.SimilarItemsRequest(), *WRONG, "item_id: is empty"),
        (pb.RankRequest(user_id="user-1"), *WRONG, "item_ids: is empty; send at least one"),
        (pb.RankRequest(item_ids=["x"] * 51), *WRONG, "item_ids: has 51 items; at most 50"),
        (pb.RecommendRequest(history=["x"] * 51), *WRONG, "history: has 51 items"),
        (pb.RankRequest(item_ids=["x"] * 51), *WRONG, "max_candidates"),
        (pb.RecommendRequest(user_id="nobody"), "NOT_FOUND", "USER_NOT_FOUND", "'nobody'"),
        (pb.RecommendRequest(user_id="nobody", history=["zz"]), "NOT_FOUND", "USER_NOT_FOUND", "'nobody'"),
        (pb.RecommendRequest(history=["zz", "yy"]), "NOT_FOUND", "ITEM_NOT_FOUND", "'zz'"),
        (pb.RankRequest(user_id="nobody", item_ids=["item-1"]), "NOT_FOUND", "USER_NOT_FOUND", "'nobody'"),
        (pb.SimilarItemsRequest(item_id="zz\n" * 500), "NOT_FOUND", "ITEM_NOT_FOUND", "zz"),
        (pb.RecommendRequest(model="shopp"), "NOT_FOUND", "MODEL_NOT_FOUND", "did you mean shop?"),
        (pb.RecommendRequest(model="shop@4"), "NOT_FOUND", "MODEL_VERSION_NOT_FOUND", "shop@1"),
        (pb.RecommendRequest(model="shop_retrieval"), *WRONG, "does not recommend"),
    ],
)  # fmt: skip
async def test_what_a_wrong_call_hears(shop_models, request_, code, reason, words):
    limits = {"services.recommendation.max_candidates": 50}
    async with (
        serving("recommendation", shop_models, limits) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        said, why = await refused(call(channel, request_), getattr(grpc.StatusCode, code))
        assert words in said
        assert why == reason
        assert (await call(channel, pb.RecommendRequest(user_id="user-1"))).items


async def test_calls_share_batches_and_each_gets_its_own(shop_models):
    requests = [pb.RankRequest(user_id=f"user-{n}", item_ids=[item(place) for place in range(9)]) for n in range(40)]
    async with serving("recommendation", shop_models) as served, grpc.aio.insecure_channel(served.address) as channel:
        alone = [await call(channel, request) for request in requests]
        together = await asyncio.gather(*(call(channel, request) for request in requests))
    for one, many in zip(alone, together, strict=True):
        assert ids(one) == ids(many)
        np.testing.assert_allclose([i.score for i in one.items], [i.score for i in many.items], atol=1e-5)


async def test_recommenders_live_side_by_side(shop_models, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(shop_models, models)
    for name in ("shop", "shop_retrieval"):
        shutil.copytree(models / name, models / name.replace("shop", "other"))
        manifest = models / name.replace("shop", "other") / "model.toml"
        manifest.write_text(manifest.read_text().replace('"shop', '"other'))
    lines = (models / "other/items.csv").read_text().splitlines()
    (models / "other/items.csv").write_text("\n".join([lines[0], *(f"o-{line}" for line in lines[1:])]))
    (models / "other/interactions.csv").write_text("user_id,item_id\nme,o-item-1\n")
    async with serving("recommendation", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        said, _ = await refused(call(channel, pb.RecommendRequest()), grpc.StatusCode.INVALID_ARGUMENT)
        assert said == "model: is empty and there is no default; choose one of: other, shop"
        other = await call(channel, pb.RecommendRequest(model="other", user_id="me"))
        assert ids(other)[0].startswith("o-item-")
        await refused(call(channel, pb.RecommendRequest(model="shop", user_id="me")), grpc.StatusCode.NOT_FOUND)
        assert (await call(channel, pb.RecommendRequest(model="shop@1", user_id="user-1"))).model.name == "shop"


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("items.csv", "", "items.csv: is empty"),
        (
            "items.csv",
            "item_id\nitem-1\nitem-1\n",
            "items.csv, line 3, column 'item_id': 'item-1' is there a second time",
        ),
        ("items.csv", None, "items.csv: cannot be read (No such file or directory)"),
        ("interactions.csv", "user_id,item_id\nuser-1,zz\n", "line 2, column 'item_id': is 'zz', must be an item"),
    ],
)
async def test_a_damaged_table_makes_its_model_unavailable_and_no_other(shop_models, tmp_path, file, content, words):
    models = tmp_path / "models"
    shutil.copytree(shop_models, models)
    path = models / "shop" / file
    path.unlink() if content is None else path.write_text(content)
    async with serving("recommendation", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        said, reason = await refused(
            call(channel, pb.RecommendRequest(model="shop", user_id="user-1")), grpc.StatusCode.UNAVAILABLE
        )
        assert reason == "MODEL_UNAVAILABLE"
        assert words in said
        assert served.host.resolve("shop_retrieval", "tensor").state == "READY"


async def test_a_recommender_says_that_its_retrieval_is_missing(shop_models, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(shop_models / "shop", models / "shop")
    async with serving("recommendation", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        said, _ = await refused(call(channel, pb.RecommendRequest(user_id="user-1")), grpc.StatusCode.UNAVAILABLE)
        assert "it needs model shop_retrieval: there is no model 'shop_retrieval'" in said
        assert (await call(channel, pb.RecommendRequest())).items


async def test_a_retrieval_of_another_catalogue_is_found_out(shop_models, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(shop_models, models)
    with (models / "shop" / "items.csv").open("a") as file:
        file.write("one-more,One more,0\n")
    async with serving("recommendation", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        said, _ = await refused(call(channel, pb.RecommendRequest(user_id="user-1")), grpc.StatusCode.UNAVAILABLE)
        assert "its retrieval shop_retrieval gives scores of 60 items, but the catalogue has 61" in said


def own_ranker(models, datatype=TensorProto.INT64):
    """A network of somebody's own, which reads histories itself: it prefers items near the latest one."""
    nodes = [
        helper.make_node("Gather", ["history", "first"], ["latest"], axis=1),
        helper.make_node("Sub", ["item", "latest"], ["apart"]),
        helper.make_node("Cast", ["apart"], ["apart.float"], to=TensorProto.FLOAT),
        helper.make_node("Abs", ["apart.float"], ["distance"]),
        helper.make_node("Neg", ["distance"], ["score"]),
    ]
    graph = helper.make_graph(
        nodes,
        "own",
        [
            helper.make_tensor_value_info("history", datatype, ["rows", 5]),
            helper.make_tensor_value_info("item", datatype, ["rows", 1]),
        ],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows", 1])],
        [helper.make_tensor("first", TensorProto.INT64, [1], [0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (models / "own/1").mkdir(parents=True)
    onnx.save(model, models / "own/1/model.onnx")
    (models / "own/items.csv").write_text("item_id\n" + "".join(f"{place}\n" for place in "abcdef"))
    (models / "own/model.toml").write_text(
        'name = "own"\nservice = "recommendation"\ntasks = ["rank"]\n[recommender]\nuser = "history"\n'
    )


async def test_a_ranker_of_ones_own_serves_by_manifest_alone(tmp_path):
    own_ranker(tmp_path)
    async with serving("recommendation", tmp_path) as served, grpc.aio.insecure_channel(served.address) as channel:
        answer = await call(channel, pb.RankRequest(history=["f", "b"], item_ids=list("abcdefg")))
        assert ids(answer) == ["b", "a", "c", "d", "e", "f"]
        assert list(answer.missing_item_ids) == ["g"]
        assert answer.items[3].score == -2.0
        said, _ = await refused(call(channel, pb.RecommendRequest(history=["a"])), grpc.StatusCode.INVALID_ARGUMENT)
        assert "no model of this service can recommend" in said


async def test_a_ranker_with_other_tensors_is_refused_with_the_reason(tmp_path):
    own_ranker(tmp_path, TensorProto.INT32)
    async with serving("recommendation", tmp_path) as served, grpc.aio.insecure_channel(served.address) as channel:
        said, _ = await refused(call(channel, pb.RankRequest(model="own", item_ids=["a"])), grpc.StatusCode.UNAVAILABLE)
        assert "recommender.user: 'history' is INT32 [-1, 5], must be INT64 [rows, a fixed number]" in said


async def test_a_deadline_that_has_passed_costs_no_engine_run(shop_models):
    async with serving("recommendation", shop_models) as served, grpc.aio.insecure_channel(served.address) as channel:
        rank = channel.unary_unary(
            f"{SERVICE}/Rank",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pb.RankResponse.FromString,
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rank(pb.RankRequest(user_id="user-1", item_ids=["item-1"]), timeout=1e-6)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await served.host.drain()
        assert served.host.resolve("shop", "rank").batcher.stats().batches == 0

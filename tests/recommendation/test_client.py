"""`client.recommendation` against the service itself."""

import asyncio

import pytest

import headrace
from tests.serving import serving


async def test_every_call_from_asyncio(shop_models):
    async with serving("recommendation", shop_models) as served, headrace.AsyncClient(served.address) as client:
        found = await client.recommendation.recommend("user-1", page_size=3, exclude_seen=True)
        assert len(found) == 3
        assert isinstance(found[0], headrace.Item)
        assert (found.model.name, found.receipt.model.name) == ("shop", "shop")
        trending = await client.recommendation.recommend()
        assert trending[0].score == 1.0
        assert trending.receipt.batch_rows == 0
        ranked = await client.recommendation.rank(["item-1", "?", "item-2"], history=["item-0"])
        assert {item.item_id for item in ranked} == {"item-1", "item-2"}
        assert ranked.missing_item_ids == ("?",)
        similar = await client.recommendation.similar_items("item-1", page_size=2)
        assert len(similar) == 2
        with pytest.raises(headrace.NotFound, match="there is no item"):
            await client.recommendation.similar_items("item-1000")
        with pytest.raises(TypeError, match="must be a list of strings"):
            await client.recommendation.rank("item-1")


async def test_every_call_from_a_thread(shop_models):
    def work(address):
        with headrace.Client(address) as client:
            calls = client.recommendation
            return (
                calls.recommend(history=["item-3", "item-4"], page_size=4),
                calls.rank(item for item in ("item-5", "item-6")),
                calls.similar_items("item-5"),
            )

    async with serving("recommendation", shop_models) as served:
        recommended, ranked, similar = await asyncio.to_thread(work, served.address)
    assert [len(answer) for answer in (recommended, ranked, similar)] == [4, 2, 10]
    assert ranked.missing_item_ids == ()
    assert all(answer.receipt is not None for answer in (recommended, ranked, similar))

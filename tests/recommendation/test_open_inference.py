"""Both networks of a recommender as ordinary tensors, through Triton's own client."""

import grpc
import numpy as np
from tritonclient.grpc import aio

from headrace.recommendation.v1 import recommendation_pb2 as pb
from tests.recommendation import shop
from tests.recommendation.test_servicer import call
from tests.serving import serving


def tensor(name, array, datatype):
    made = aio.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


async def test_tensors_give_what_the_typed_call_gives(shop_models):
    """A history through retrieval, every item through the ranking network; the typed answer has the same scores."""
    history = np.full((1, 100), -1)
    history[0, :3] = [17, 16, 15]
    everything = np.arange(shop.ITEMS).reshape(-1, 1)
    async with serving("recommendation", shop_models) as served, aio.InferenceServerClient(served.address) as client:
        found = await client.infer("shop_retrieval", [tensor("history", history, "INT64")])
        assert found.as_numpy("scores").shape == found.as_numpy("similar").shape == (1, shop.ITEMS)
        user = np.repeat(found.as_numpy("user"), shop.ITEMS, axis=0)
        ranked = await client.infer("shop", [tensor("user", user, "FP32"), tensor("item", everything, "INT64")])
        scores = ranked.as_numpy("score")[:, 0]
        async with grpc.aio.insecure_channel(served.address) as channel:
            names = [shop.item(place) for place in (15, 16, 17)]
            ids = [shop.item(place) for place in range(shop.ITEMS)]
            typed = await call(channel, pb.RankRequest(history=names, item_ids=ids))
        for item in typed.items:
            np.testing.assert_allclose(item.score, scores[ids.index(item.item_id)], atol=1e-5)

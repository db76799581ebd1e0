"""RecommendationService: ids to the numbers of items and back."""

# The names and signatures of rpcs are the protocol's.
# ruff: noqa: N802

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from headrace.recommendation.v1 import recommendation_pb2 as pb
from services.chassis import errors
from services.chassis.call import Call, Receipt
from services.chassis.items import reference
from services.chassis.telemetry import span
from services.recommendation.places import Places, best, ordered
from services.recommendation.recommenders import Recommender, Recommenders

DEFAULT_PAGE_SIZE: Final = 10
MAX_PAGE_SIZE: Final = 100
#: Items made in one go: ten thousand candidates must not hold up the event loop.
_YIELD_EVERY: Final = 256
#: Choosing among more scores than this takes a thread.
_MANY: Final = 50_000
SERVICE: Final = pb.DESCRIPTOR.services_by_name["RecommendationService"]


@dataclass(frozen=True, slots=True)
class RecommendationServicer:
    """Answers `headrace.recommendation.v1.RecommendationService`. `max_candidates`: ids accepted in one list."""

    recommenders: Recommenders
    max_candidates: int

    async def Recommend(self, request: pb.RecommendRequest, call: Call) -> pb.RecommendResponse:
        """What a user, or whoever has a history, chooses next; what is trending, for nobody in particular."""
        page_size = _page_size(request.page_size)
        self._check_count("history", request.history)
        recommender = await self.recommenders.get(request.model, "recommend")
        answer = pb.RecommendResponse(model=reference(recommender.model))
        with span(call, "transform"):
            history = recommender.history(request.user_id, request.history)
        if history is None:
            # No network is asked, and the receipt says so.
            call.receipt = Receipt(recommender.model.name, recommender.model.version, 0.0, 0.0, 0.0, 0, 0.0)
            trending = recommender.tables.trending[:page_size]
            answer.items.extend(_items(recommender, trending, recommender.tables.trend[trending]))
            return answer
        found = await recommender.retrieve(history, call)
        with span(call, "transform"):
            count = max(recommender.section.candidates, page_size)
            candidates = await _best(found.scores, count, history if request.exclude_seen else None)
        if len(candidates):
            scores = await recommender.score_for(found.user, candidates, call)
            order = best(scores, page_size)
            answer.items.extend(_items(recommender, candidates[order], scores[order]))
        return answer

    async def Rank(self, request: pb.RankRequest, call: Call) -> pb.RankResponse:
        """The caller's candidates, each once, in the order of preference."""
        if not request.item_ids:
            raise errors.invalid_argument("item_ids", "is empty; send at least one")
        self._check_count("item_ids", request.item_ids)
        self._check_count("history", request.history)
        recommender = await self.recommenders.get(request.model, "rank")
        answer = pb.RankResponse(model=reference(recommender.model))
        with span(call, "transform"):
            history = recommender.history(request.user_id, request.history)
            places, missing = _known(recommender, request.item_ids)
            answer.missing_item_ids.extend(missing)
        if not len(places):
            return answer
        nobody = np.array([], np.int64)
        scores = await recommender.score(nobody if history is None else history, places, call)
        order = ordered(scores)
        for start in range(0, len(order), _YIELD_EVERY):
            part = order[start : start + _YIELD_EVERY]
            answer.items.extend(_items(recommender, places[part], scores[part]))
            await asyncio.sleep(0)
        return answer

    async def SimilarItems(self, request: pb.SimilarItemsRequest, call: Call) -> pb.SimilarItemsResponse:
        """The nearest neighbours of an item by cosine."""
        if not request.item_id:
            raise errors.invalid_argument("item_id", "is empty; name an item of the catalogue")
        page_size = _page_size(request.page_size)
        recommender = await self.recommenders.get(request.model, "similar_items")
        place = recommender.tables.places.get(request.item_id)
        if place is None:
            raise errors.not_found("item", request.item_id)
        own = np.array([place], np.int64)
        similar = (await recommender.retrieve(own, call)).similar
        order = await _best(similar, page_size, own)
        items = _items(recommender, order, similar[order])
        return pb.SimilarItemsResponse(items=items, model=reference(recommender.model))

    def _check_count(self, field: str, ids: Sequence[str]) -> None:
        if len(ids) > self.max_candidates:
            limit = f"at most {self.max_candidates} are accepted (services.recommendation.max_candidates)"
            raise errors.invalid_argument(field, f"has {len(ids)} items; {limit}: send several calls")


def _page_size(asked: int) -> int:
    if asked < 0:
        allowed = f"must be 0 (meaning {DEFAULT_PAGE_SIZE}) or more; more than {MAX_PAGE_SIZE} means {MAX_PAGE_SIZE}"
        raise errors.invalid_argument("page_size", f"is {asked}; {allowed}")
    return min(asked or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def _known(recommender: Recommender, ids: Iterable[str]) -> tuple[Places, list[str]]:
    """The numbers of known items and the ids of unknown ones, each once, in the order of the request."""
    numbers = {item: recommender.tables.places.get(item) for item in ids}
    known = [number for number in numbers.values() if number is not None]
    return np.array(known, np.int64), [item for item, number in numbers.items() if number is None]


async def _best(scores: npt.NDArray[Any], count: int, without: Places | None) -> Places:
    if len(scores) <= _MANY:
        return best(scores, count, without)
    return await asyncio.to_thread(best, scores, count, without)


def _items(
    recommender: Recommender, places: npt.NDArray[np.integer[Any]], scores: npt.NDArray[np.float32]
) -> list[pb.Item]:
    ids, titles = recommender.tables.ids, recommender.tables.titles
    pairs = zip(places.tolist(), scores.tolist(), strict=True)
    return [pb.Item(item_id=ids[place], title=titles[place], score=score) for place, score in pairs]

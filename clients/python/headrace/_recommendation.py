"""Typed calls of the recommendation service."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headrace._results import Model, Receipt, Results
from headrace._transport import AsyncCaller, Caller, CallOptions, Rpc
from headrace.recommendation.v1 import recommendation_pb2


@dataclass(frozen=True, slots=True)
class Item:
    """An item of the catalogue in a ranking; `score` is comparable within one answer only, higher is better."""

    item_id: str
    title: str
    score: float


@dataclass(frozen=True, slots=True)
class Ranking(Results[Item]):
    """Candidates, best first; `missing_item_ids` are those that the model does not know."""

    missing_item_ids: tuple[str, ...] = ()


def _items(found: Iterable[recommendation_pb2.Item]) -> tuple[Item, ...]:
    return tuple(Item(item.item_id, item.title, item.score) for item in found)


def _recommended(response: recommendation_pb2.RecommendResponse, receipt: Receipt | None) -> Results[Item]:
    return Results(_items(response.items), Model(response.model.name, response.model.version), receipt)


def _ranked(response: recommendation_pb2.RankResponse, receipt: Receipt | None) -> Ranking:
    model = Model(response.model.name, response.model.version)
    return Ranking(_items(response.items), model, receipt, tuple(response.missing_item_ids))


def _similar(response: recommendation_pb2.SimilarItemsResponse, receipt: Receipt | None) -> Results[Item]:
    return Results(_items(response.items), Model(response.model.name, response.model.version), receipt)


_SERVICE = "/headrace.recommendation.v1.RecommendationService"
_RECOMMEND = Rpc(f"{_SERVICE}/Recommend", recommendation_pb2.RecommendResponse, _recommended)
_RANK = Rpc(f"{_SERVICE}/Rank", recommendation_pb2.RankResponse, _ranked)
_SIMILAR = Rpc(f"{_SERVICE}/SimilarItems", recommendation_pb2.SimilarItemsResponse, _similar)


def _recommend_request(
    model: str, user_id: str, history: Iterable[str], page_size: int, exclude_seen: bool
) -> recommendation_pb2.RecommendRequest:
    return recommendation_pb2.RecommendRequest(
        model=model, user_id=user_id, history=_ids(history), page_size=page_size, exclude_seen=exclude_seen
    )


def _rank_request(
    model: str, user_id: str, history: Iterable[str], item_ids: Iterable[str]
) -> recommendation_pb2.RankRequest:
    return recommendation_pb2.RankRequest(model=model, user_id=user_id, history=_ids(history), item_ids=_ids(item_ids))


def _similar_request(model: str, item_id: str, page_size: int) -> recommendation_pb2.SimilarItemsRequest:
    return recommendation_pb2.SimilarItemsRequest(model=model, item_id=item_id, page_size=page_size)


def _ids(ids: Iterable[str]) -> list[str]:
    """Ids as a list; a lone string would fall apart into letters."""
    if isinstance(ids, str):
        raise TypeError(f"ids must be a list of strings, not the string {ids[:40]!r}")
    return list(ids)


class Recommendation:
    """Blocking calls of the recommendation service, reached as `client.recommendation`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def recommend(  # noqa: PLR0913 - a call takes what its request has.
        self,
        user_id: str = "",
        *,
        history: Iterable[str] = (),
        page_size: int = 10,
        exclude_seen: bool = False,
        model: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Results[Item]:
        """Recommend items, best first: to a known user, for a history of item ids, or, with neither, what is trending.

        `history`: oldest first; for a known user, what came after what the model knows. `exclude_seen`: leave out the
        items of the history and those that the user is known to have chosen. `page_size`: at most 100. `model`: ""
        (the mesh's default), "name" or "name@version". `timeout`: seconds, the client's when None. `metadata`: sent
        along, such as `{"traceparent": ...}`.

        Raises:
            NotFound: the model knows neither the user nor an item of the history.
            HeadraceError: the call failed otherwise.
            TypeError: `history` is a string.
        """
        request = _recommend_request(model, user_id, history, page_size, exclude_seen)
        return self._caller.unary(_RECOMMEND, request, CallOptions(timeout, metadata))

    def rank(
        self,
        item_ids: Iterable[str],
        *,
        user_id: str = "",
        history: Iterable[str] = (),
        model: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Ranking:
        """Order candidates for a user or a history, each once, best first; other parameters are those of `recommend`.

        Unknown candidates are answered as `missing_item_ids`.

        Raises:
            NotFound: the model knows neither the user nor an item of the history.
            HeadraceError: the call failed otherwise.
            TypeError: `item_ids` or `history` is a string.
        """
        request = _rank_request(model, user_id, history, item_ids)
        return self._caller.unary(_RANK, request, CallOptions(timeout, metadata))

    def similar_items(
        self,
        item_id: str,
        *,
        page_size: int = 10,
        model: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Results[Item]:
        """Find the items nearest to one, best first; scores are cosines, -1..1.

        Raises:
            NotFound: the model does not know the item.
            HeadraceError: the call failed otherwise.
        """
        request = _similar_request(model, item_id, page_size)
        return self._caller.unary(_SIMILAR, request, CallOptions(timeout, metadata))


class AsyncRecommendation:
    """Calls of the recommendation service for asyncio, reached as `client.recommendation`; see `Recommendation`."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def recommend(  # noqa: PLR0913 - a call takes what its request has.
        self,
        user_id: str = "",
        *,
        history: Iterable[str] = (),
        page_size: int = 10,
        exclude_seen: bool = False,
        model: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - it is the rpc's deadline, which the server must know too
        metadata: Mapping[str, str] | None = None,
    ) -> Results[Item]:
        """Recommend items, best first; see `Recommendation.recommend`."""
        request = _recommend_request(model, user_id, history, page_size, exclude_seen)
        return await self._caller.unary(_RECOMMEND, request, CallOptions(timeout, metadata))

    async def rank(
        self,
        item_ids: Iterable[str],
        *,
        user_id: str = "",
        history: Iterable[str] = (),
        model: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - it is the rpc's deadline, which the server must know too
        metadata: Mapping[str, str] | None = None,
    ) -> Ranking:
        """Order candidates for a user or a history, best first; see `Recommendation.rank`."""
        request = _rank_request(model, user_id, history, item_ids)
        return await self._caller.unary(_RANK, request, CallOptions(timeout, metadata))

    async def similar_items(
        self,
        item_id: str,
        *,
        page_size: int = 10,
        model: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - it is the rpc's deadline, which the server must know too
        metadata: Mapping[str, str] | None = None,
    ) -> Results[Item]:
        """Find the items nearest to one, best first; see `Recommendation.similar_items`."""
        request = _similar_request(model, item_id, page_size)
        return await self._caller.unary(_SIMILAR, request, CallOptions(timeout, metadata))

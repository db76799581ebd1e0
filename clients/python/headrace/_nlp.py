"""Typed calls of the nlp service."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headrace._answers import classified, embedded
from headrace._results import ClassifyResult, EmbedResult, Model, Receipt, Results
from headrace._transport import AsyncCaller, Caller, CallOptions, Rpc
from headrace.nlp.v1 import nlp_pb2


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """One document's place in a ranking: its `index` in the request, and its `score`, higher is better."""

    index: int
    score: float


def _ranked(response: nlp_pb2.RerankResponse, receipt: Receipt | None) -> Results[RankedDocument]:
    items = tuple(RankedDocument(result.index, result.score) for result in response.results)
    return Results(items, Model(response.model.name, response.model.version), receipt)


_EMBED = Rpc("/headrace.nlp.v1.NlpService/Embed", nlp_pb2.EmbedTextsResponse, embedded)
_CLASSIFY = Rpc("/headrace.nlp.v1.NlpService/ClassifyText", nlp_pb2.ClassifyTextResponse, classified)
_RERANK = Rpc("/headrace.nlp.v1.NlpService/Rerank", nlp_pb2.RerankResponse, _ranked)


def _embed_request(model: str, texts: str | Iterable[str], no_truncate: bool) -> nlp_pb2.EmbedTextsRequest:
    return nlp_pb2.EmbedTextsRequest(model=model, texts=_as_list(texts), no_truncate=no_truncate)


def _classify_request(
    model: str, texts: str | Iterable[str], labels: Iterable[str], top_k: int
) -> nlp_pb2.ClassifyTextRequest:
    return nlp_pb2.ClassifyTextRequest(model=model, texts=_as_list(texts), labels=_as_list(labels), top_k=top_k)


def _rerank_request(model: str, query: str, documents: Iterable[str], top_n: int) -> nlp_pb2.RerankRequest:
    return nlp_pb2.RerankRequest(model=model, query=query, documents=_as_list(documents), top_n=top_n)


def _as_list(texts: str | Iterable[str]) -> list[str]:
    """One text is a list of one, never of its letters."""
    return [texts] if isinstance(texts, str) else list(texts)


class Nlp:
    """Blocking calls of the nlp service, reached as `client.nlp`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def embed(
        self,
        texts: str | Iterable[str],
        *,
        model: str = "",
        no_truncate: bool = False,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Results[EmbedResult]:
        """Turn one text or many into vectors of unit length; one result for each, in their order.

        `model`: "" (the mesh's default), "name" or "name@version". `no_truncate`: a text longer than the model reads
        gets an error instead of being cut. `timeout`: seconds, the client's when None. `metadata`: sent along, such as
        `{"traceparent": ...}`.

        Raises:
            HeadraceError: the call as a whole failed; a text that alone is bad carries its error in its result.
        """
        request = _embed_request(model, texts, no_truncate)
        return self._caller.unary(_EMBED, request, CallOptions(timeout, metadata))

    def classify(
        self,
        texts: str | Iterable[str],
        *,
        labels: Iterable[str] = (),
        model: str = "",
        top_k: int = 5,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Results[ClassifyResult]:
        """Label one text or many: with the model's own labels, or with `labels`, whatever they are (zero-shot).

        `top_k`: labels for each text. The other parameters and errors are those of `embed`.
        """
        request = _classify_request(model, texts, labels, top_k)
        return self._caller.unary(_CLASSIFY, request, CallOptions(timeout, metadata))

    def rerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        model: str = "",
        top_n: int = 0,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Results[RankedDocument]:
        """Rank documents by how well they answer `query`, best first; `top_n`: how many to answer, 0 = all.

        The other parameters and errors are those of `embed`, but for documents, which have no errors of their own.
        """
        request = _rerank_request(model, query, documents, top_n)
        return self._caller.unary(_RERANK, request, CallOptions(timeout, metadata))


class AsyncNlp:
    """Calls of the nlp service for asyncio, reached as `client.nlp`; what they do is said in `Nlp`."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def embed(
        self,
        texts: str | Iterable[str],
        *,
        model: str = "",
        no_truncate: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - it is the rpc's deadline, which the server must know too
        metadata: Mapping[str, str] | None = None,
    ) -> Results[EmbedResult]:
        """Turn one text or many into vectors of unit length; see `Nlp.embed`."""
        request = _embed_request(model, texts, no_truncate)
        return await self._caller.unary(_EMBED, request, CallOptions(timeout, metadata))

    async def classify(
        self,
        texts: str | Iterable[str],
        *,
        labels: Iterable[str] = (),
        model: str = "",
        top_k: int = 5,
        timeout: float | None = None,  # noqa: ASYNC109 - it is the rpc's deadline, which the server must know too
        metadata: Mapping[str, str] | None = None,
    ) -> Results[ClassifyResult]:
        """Label one text or many; see `Nlp.classify`."""
        request = _classify_request(model, texts, labels, top_k)
        return await self._caller.unary(_CLASSIFY, request, CallOptions(timeout, metadata))

    async def rerank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        model: str = "",
        top_n: int = 0,
        timeout: float | None = None,  # noqa: ASYNC109 - it is the rpc's deadline, which the server must know too
        metadata: Mapping[str, str] | None = None,
    ) -> Results[RankedDocument]:
        """Rank documents by how well they answer `query`; see `Nlp.rerank`."""
        request = _rerank_request(model, query, documents, top_n)
        return await self._caller.unary(_RERANK, request, CallOptions(timeout, metadata))

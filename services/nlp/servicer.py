"""NlpService: proto to texts and back. A text that fails takes its own place in the answer, no other's."""

# The names and signatures of rpcs are the protocol's.
# ruff: noqa: N802

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from headrace.common.v1 import common_pb2 as common
from headrace.nlp.v1 import nlp_pb2 as pb
from services.chassis import errors
from services.chassis.call import Call
from services.chassis.errors import ServiceError
from services.chassis.items import check_count, reference
from services.chassis.models import LoadedModel, ModelHost
from services.nlp import transforms
from services.nlp.classifying import Classifier, Scores
from services.nlp.sections import embed_of, manifest_of
from services.nlp.texts import Read, TextCall, TextRunner, stacked
from services.nlp.transforms import Floats

DEFAULT_TOP_K: Final = 5
#: Results made in one go: labels of a thousand texts must not hold up the event loop.
_YIELD_EVERY: Final = 16
SERVICE: Final = pb.DESCRIPTOR.services_by_name["NlpService"]


@dataclass(frozen=True, slots=True)
class NlpServicer:
    """Answers `headrace.nlp.v1.NlpService`. `max_items`: texts, labels or documents accepted in one call."""

    host: ModelHost
    runner: TextRunner
    classifier: Classifier
    max_items: int

    async def Embed(self, request: pb.EmbedTextsRequest, call: Call) -> pb.EmbedTextsResponse:
        """A vector of unit length for each text."""
        check_count("texts", request.texts, self.max_items)
        model = self.host.resolve(request.model, "embed")
        texts = TextCall(model, call, request.texts, embed_of(model).output, no_truncate=request.no_truncate)
        results = await self.runner.run(texts)
        answer = pb.EmbedTextsResponse(model=reference(model))
        for index, result in enumerate(results, start=1):
            answer.results.append(_embedded(result))
            if index % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        return answer

    async def ClassifyText(self, request: pb.ClassifyTextRequest, call: Call) -> pb.ClassifyTextResponse:
        """The likeliest labels of each text: the caller's, or the model's own."""
        check_count("texts", request.texts, self.max_items)
        if request.top_k < 0:
            raise errors.invalid_argument("top_k", f"is {request.top_k}; must be 0 (meaning {DEFAULT_TOP_K}) or more")
        if request.labels:
            check_count("labels", request.labels, self.max_items)
            self._check_labels(request.labels)
            model, scores = await self.classifier.zero_shot(request.model, request.texts, request.labels, call)
            labels: Sequence[str] = request.labels
        else:
            model, scores = await self.classifier.own(request.model, request.texts, call)
            labels = model.labels
        answer = pb.ClassifyTextResponse(model=reference(model))
        for index, result in enumerate(scores, start=1):
            answer.results.append(_classified(result, labels, request.top_k or DEFAULT_TOP_K))
            if index % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        return answer

    async def Rerank(self, request: pb.RerankRequest, call: Call) -> pb.RerankResponse:
        """The documents by how well they answer the query."""
        if not request.query.strip():
            raise errors.invalid_argument("query", "is empty; say what the documents should answer")
        check_count("documents", request.documents, self.max_items)
        if request.top_n < 0:
            raise errors.invalid_argument("top_n", f"is {request.top_n}; must be 0 (meaning all documents) or more")
        self._check_sizes(request)
        model = self.host.resolve(request.model, "rerank")
        scores = await self._relevance(model, request, call)
        order = transforms.best(scores, request.top_n or len(scores))
        results = [pb.RankedDocument(index=index, score=scores[index]) for index in order]
        return pb.RerankResponse(results=results, model=reference(model))

    async def _relevance(self, model: LoadedModel, request: pb.RerankRequest, call: Call) -> Floats:
        """How well each document answers the query: a cross-encoder's word, or the cosine of two embeddings."""
        query, documents, rerank = request.query, request.documents, manifest_of(model).rerank
        if rerank is not None:
            pairs = [(query, document) for document in documents]
            values = stacked(_all(await self.runner.run(TextCall(model, call, pairs, rerank.output, "documents"))))
            return np.asarray(values[:, -1], np.float32)
        together = TextCall(model, call, [query, *documents], embed_of(model).output, "documents")
        vectors = transforms.unit(stacked(_all(await self.runner.run(together))))
        return np.asarray(vectors[1:] @ vectors[0], np.float32)

    def _check_labels(self, labels: Sequence[str]) -> None:
        """Labels share one answer, so a bad one fails the call."""
        wrong, seen = [], dict[str, int]()
        for index, label in enumerate(labels):
            problem = self.runner.too_long(label)
            if not label.strip():
                problem = "is empty; every label needs words"
            elif label in seen:
                problem = f"repeats labels[{seen[label]}]; name each label once"
            seen.setdefault(label, index)
            if problem:
                wrong.append((f"labels[{index}]", problem))
        if wrong:
            raise errors.invalid_arguments(wrong)

    def _check_sizes(self, request: pb.RerankRequest) -> None:
        """A ranking has no place for an error of one document, so it fails the call."""
        sized = [("query", request.query)]
        sized += [(f"documents[{index}]", document) for index, document in enumerate(request.documents)]
        wrong = [(field, problem) for field, text in sized if (problem := self.runner.too_long(text))]
        if wrong:
            raise errors.invalid_arguments(wrong)


def _all(results: Sequence[Read | ServiceError]) -> list[Read]:
    """Every result, where one that failed fails the call."""
    for result in results:
        if isinstance(result, ServiceError):
            raise result
    return [result for result in results if isinstance(result, Read)]


def _embedded(result: Read | ServiceError) -> common.EmbedResult:
    if isinstance(result, ServiceError):
        return common.EmbedResult(error=result.details())
    vector = transforms.unit(result.values[None])[0]
    return common.EmbedResult(embedding=common.Embedding(values=vector.tolist()), token_count=result.token_count)


def _classified(result: Scores | ServiceError, labels: Sequence[str], top_k: int) -> pb.ClassifyTextResult:
    if isinstance(result, ServiceError):
        return pb.ClassifyTextResult(error=result.details())
    return pb.ClassifyTextResult(
        categories=[
            common.Category(label=labels[index], score=result[index], index=index)
            for index in transforms.best(result, top_k)
        ]
    )

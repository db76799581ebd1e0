"""Answers that services of several domains give in the same form, as results."""

from headrace._errors import from_status
from headrace._results import Category, ClassifyResult, EmbedResult, Model, Receipt, Results
from headrace.nlp.v1 import nlp_pb2
from headrace.vision.v1 import vision_pb2


def classified(
    response: vision_pb2.ClassifyResponse | nlp_pb2.ClassifyTextResponse, receipt: Receipt | None
) -> Results[ClassifyResult]:
    """The labels of each item, best first, or its error."""
    items = tuple(
        ClassifyResult(
            tuple(Category(found.label, found.score, found.index) for found in result.categories),
            from_status(result.error) if result.error.code else None,
        )
        for result in response.results
    )
    return Results(items, Model(response.model.name, response.model.version), receipt)


def embedded(
    response: vision_pb2.EmbedImagesResponse | nlp_pb2.EmbedTextsResponse, receipt: Receipt | None
) -> Results[EmbedResult]:
    """The vector of each item, or its error."""
    items = tuple(
        EmbedResult(
            tuple(result.embedding.values),
            result.token_count,
            from_status(result.error) if result.error.code else None,
        )
        for result in response.results
    )
    return Results(items, Model(response.model.name, response.model.version), receipt)

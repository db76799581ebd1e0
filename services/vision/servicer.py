"""VisionService: proto to pictures and back. A picture that fails takes its own place in the answer, no other's."""

# The names and signatures of rpcs are the protocol's.
# ruff: noqa: N802

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from engines.work import Outcome
from headrace.common.v1 import common_pb2 as common
from headrace.vision.v1 import vision_pb2 as pb
from services.chassis import errors
from services.chassis.call import Call
from services.chassis.errors import ServiceError
from services.chassis.items import check_count, reference
from services.chassis.models import LoadedModel, ModelHost
from services.vision.pictures import PictureCall, PictureRunner, best, probabilities, unit
from services.vision.reading_answers import ReadingAnswers

DEFAULT_TOP_K: Final = 5
#: Results made in one go: a thousand labels for each of a thousand pictures must not hold up the event loop.
_YIELD_EVERY: Final = 16
SERVICE: Final = pb.DESCRIPTOR.services_by_name["VisionService"]


@dataclass(frozen=True, slots=True)
class VisionServicer:
    """Answers `headrace.vision.v1.VisionService`. `max_items`: pictures accepted in one call."""

    host: ModelHost
    runner: PictureRunner
    reading: ReadingAnswers
    max_items: int

    async def Classify(self, request: pb.ClassifyRequest, call: Call) -> pb.ClassifyResponse:
        """The likeliest labels of each picture."""
        if request.top_k < 0:
            raise errors.invalid_argument("top_k", f"is {request.top_k}; must be 0 (meaning {DEFAULT_TOP_K}) or more")
        model, results = await self._run(request, "classify", call)
        answer = pb.ClassifyResponse(model=reference(model))
        for index, result in enumerate(results, start=1):
            answer.results.append(_classified(model, result, request.top_k or DEFAULT_TOP_K))
            if index % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        return answer

    async def Embed(self, request: pb.EmbedImagesRequest, call: Call) -> pb.EmbedImagesResponse:
        """A vector of unit length for each picture."""
        model, results = await self._run(request, "embed", call)
        return pb.EmbedImagesResponse(results=[_embedded(model, result) for result in results], model=reference(model))

    async def ReadText(self, request: pb.ReadTextRequest, call: Call) -> pb.ReadTextResponse:
        """The lines of print in each picture."""
        check_count("images", request.images, self.max_items)
        return await self.reading.answer(request, call)

    async def _run(self, request: Any, task: str, call: Call) -> tuple[LoadedModel, list[Outcome | ServiceError]]:
        images = request.images
        check_count("images", images, self.max_items)
        model = self.host.resolve(request.model, task)
        pictures = PictureCall(model, call, len(images), lambda index: images[index].content)
        results = await self.runner.run(pictures)
        if outcomes := [result for result in results if isinstance(result, Outcome)]:
            call.record(model.name, model.version, outcomes)
        return model, results


def _classified(model: LoadedModel, result: Outcome | ServiceError, top_k: int) -> pb.ClassifyResult:
    if isinstance(result, ServiceError):
        return pb.ClassifyResult(error=result.details())
    classify = model.manifest.classify if model.manifest is not None else None
    assert classify is not None  # noqa: S101  # The model resolved for this task.
    values = probabilities(result.outputs[classify.output][0], classify.activation)
    labels: Sequence[str] = model.labels
    return pb.ClassifyResult(
        categories=[
            common.Category(label=labels[index] if index < len(labels) else "", score=values[index], index=index)
            for index in best(values, top_k)
        ]
    )


def _embedded(model: LoadedModel, result: Outcome | ServiceError) -> common.EmbedResult:
    if isinstance(result, ServiceError):
        return common.EmbedResult(error=result.details())
    embed = model.manifest.embed if model.manifest is not None else None
    assert embed is not None  # noqa: S101  # The model resolved for this task.
    vector = unit(result.outputs[embed.output][0])
    return common.EmbedResult(embedding=common.Embedding(values=vector.tolist()))

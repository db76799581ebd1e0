"""ReadText: pictures in, lines of text out."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from headrace.common.v1 import common_pb2 as common
from headrace.vision.v1 import vision_pb2 as pb
from services.chassis.call import Call
from services.chassis.errors import ServiceError
from services.vision.reading import Line, PageReader, PagesCall
from services.vision.reading_models import NetworkBook

#: Lines put into the answer in one go: pages of thousands must not hold up the event loop.
_YIELD_EVERY: Final = 200


@dataclass(frozen=True, slots=True)
class ReadingAnswers:
    """Answers ReadText."""

    networks: NetworkBook
    reader: PageReader

    async def answer(self, request: pb.ReadTextRequest, call: Call) -> pb.ReadTextResponse:
        """The lines of each picture of the request. Raises ServiceError."""
        networks, images = await self.networks.find(request.model), request.images
        pages = PagesCall(networks, call, len(images), lambda index: images[index].content)
        results = await self.reader.read(pages)
        reader = networks.reader
        for model, outcomes in ((networks.detector, pages.found), (reader, pages.read)):
            if outcomes:
                call.record(model.name, model.version, outcomes)
        if call.receipt is not None:
            # A page without text was seen by the detector only; the caller knows the reader.
            call.receipt.model, call.receipt.version = reader.name, reader.version
        answer = pb.ReadTextResponse(model=common.ModelRef(name=reader.name, version=reader.version))
        for result in results:
            made = answer.results.add()
            if isinstance(result, ServiceError):
                made.error.CopyFrom(result.details())
            else:
                await _add(made, result)
        return answer


async def _add(answer: pb.ReadTextResult, lines: Sequence[Line]) -> None:
    for number, line in enumerate(lines, start=1):
        points = [common.Point(x=x, y=y) for x, y in line.polygon.tolist()]
        answer.lines.add(text=line.text, confidence=line.confidence, polygon=points)
        if number % _YIELD_EVERY == 0:
            await asyncio.sleep(0)

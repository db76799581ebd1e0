"""Typed calls of the vision service."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headrace._answers import classified, embedded
from headrace._errors import HeadraceError, from_status
from headrace._images import ImageSource, as_list, in_memory, read_all
from headrace._results import ClassifyResult, EmbedResult, Model, Receipt, Results
from headrace._transport import AsyncCaller, Caller, CallOptions, Rpc
from headrace.vision.v1 import vision_pb2


@dataclass(frozen=True, slots=True)
class TextLine:
    """A line of print. `confidence`: mean of its characters, 0..1.

    `polygon`: its 4 corners (x, y) in the image's pixels, clockwise from the top left of the text.
    """

    text: str
    confidence: float
    polygon: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class ReadTextResult:
    """The lines of one image in reading order, none where there is no text; or the `error` that it alone met."""

    lines: tuple[TextLine, ...]
    error: HeadraceError | None = None

    @property
    def text(self) -> str:
        """All lines, each ended by a newline."""
        return "".join(f"{line.text}\n" for line in self.lines)


def _text_read(response: vision_pb2.ReadTextResponse, receipt: Receipt | None) -> Results[ReadTextResult]:
    items = tuple(
        ReadTextResult(
            tuple(
                TextLine(line.text, line.confidence, tuple((point.x, point.y) for point in line.polygon))
                for line in result.lines
            ),
            from_status(result.error) if result.error.code else None,
        )
        for result in response.results
    )
    return Results(items, Model(response.model.name, response.model.version), receipt)


_CLASSIFY = Rpc("/headrace.vision.v1.VisionService/Classify", vision_pb2.ClassifyResponse, classified)
_EMBED = Rpc("/headrace.vision.v1.VisionService/Embed", vision_pb2.EmbedImagesResponse, embedded)
_READ_TEXT = Rpc("/headrace.vision.v1.VisionService/ReadText", vision_pb2.ReadTextResponse, _text_read)


def _classify_request(model: str, images: list[bytes], top_k: int) -> vision_pb2.ClassifyRequest:
    return vision_pb2.ClassifyRequest(model=model, images=map(_image, images), top_k=top_k)


def _embed_request(model: str, images: list[bytes]) -> vision_pb2.EmbedImagesRequest:
    return vision_pb2.EmbedImagesRequest(model=model, images=map(_image, images))


def _read_text_request(model: str, images: list[bytes]) -> vision_pb2.ReadTextRequest:
    return vision_pb2.ReadTextRequest(model=model, images=map(_image, images))


def _image(content: bytes) -> vision_pb2.Image:
    return vision_pb2.Image(content=content)


async def _read(images: ImageSource | Iterable[ImageSource]) -> list[bytes]:
    """Read images without holding up the event loop."""
    sources = as_list(images)
    return read_all(sources) if in_memory(sources) else await asyncio.to_thread(read_all, sources)


class Vision:
    """Blocking calls of the vision service, reached as `client.vision`."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def classify(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        model: str = "",
        top_k: int = 5,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Results[ClassifyResult]:
        """Label one image or many; one result for each, in their order.

        `model`: "" (the mesh's default), "name" or "name@version". `top_k`: labels for each image. `timeout`: seconds,
        the client's when None. `metadata`: sent along, such as `{"traceparent": ...}`.

        Raises:
            HeadraceError: the call as a whole failed; an image that alone is bad carries its error in its result.
            OSError, TypeError: an image cannot be read.
        """
        request = _classify_request(model, read_all(as_list(images)), top_k)
        return self._caller.unary(_CLASSIFY, request, CallOptions(timeout, metadata))

    def embed(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        model: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Results[EmbedResult]:
        """Turn one image or many into vectors of unit length; parameters and errors are those of `classify`."""
        request = _embed_request(model, read_all(as_list(images)))
        return self._caller.unary(_EMBED, request, CallOptions(timeout, metadata))

    def read_text(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        model: str = "",
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Results[ReadTextResult]:
        """Read the printed text of one image or many; parameters and errors are those of `classify`."""
        request = _read_text_request(model, read_all(as_list(images)))
        return self._caller.unary(_READ_TEXT, request, CallOptions(timeout, metadata))


class AsyncVision:
    """Calls of the vision service for asyncio, reached as `client.vision`; what they do is said in `Vision`."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller

    async def classify(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        model: str = "",
        top_k: int = 5,
        timeout: float | None = None,  # noqa: ASYNC109 - it is the rpc's deadline, which the server must know too
        metadata: Mapping[str, str] | None = None,
    ) -> Results[ClassifyResult]:
        """Label one image or many; see `Vision.classify`."""
        request = _classify_request(model, await _read(images), top_k)
        return await self._caller.unary(_CLASSIFY, request, CallOptions(timeout, metadata))

    async def embed(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        model: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - it is the rpc's deadline, which the server must know too
        metadata: Mapping[str, str] | None = None,
    ) -> Results[EmbedResult]:
        """Turn one image or many into vectors of unit length; see `Vision.embed`."""
        request = _embed_request(model, await _read(images))
        return await self._caller.unary(_EMBED, request, CallOptions(timeout, metadata))

    async def read_text(
        self,
        images: ImageSource | Iterable[ImageSource],
        *,
        model: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - it is the rpc's deadline, which the server must know too
        metadata: Mapping[str, str] | None = None,
    ) -> Results[ReadTextResult]:
        """Read the printed text of one image or many; see `Vision.read_text`."""
        request = _read_text_request(model, await _read(images))
        return await self._caller.unary(_READ_TEXT, request, CallOptions(timeout, metadata))

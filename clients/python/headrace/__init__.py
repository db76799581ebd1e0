"""Python client of a Headrace inference mesh.

    import headrace

    with headrace.Client("127.0.0.1:8080") as client:
        results = client.vision.classify("photo.jpg")
        print(results[0].categories[0].label, results.receipt)

The generated stubs are beside it, for instance `headrace.vision.v1.vision_pb2`.
"""

from headrace._audio import AudioSource, RawAudio, WavChunks
from headrace._client import AsyncClient, Client
from headrace._errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    Details,
    FailedPrecondition,
    FieldViolation,
    HeadraceError,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Unknown,
)
from headrace._images import ImageSource
from headrace._models import AsyncModels, ModelInfo, Models, ModelVersion
from headrace._nlp import AsyncNlp, Nlp, RankedDocument
from headrace._recommendation import AsyncRecommendation, Item, Ranking, Recommendation
from headrace._results import Category, ClassifyResult, EmbedResult, Model, Receipt, Results
from headrace._speech import (
    AsyncSpeech,
    Speech,
    SpeechActivity,
    SpeechSegment,
    StreamingOptions,
    StreamingResult,
    Transcript,
)
from headrace._transport import AsyncResponses, Responses
from headrace._vision import AsyncVision, ReadTextResult, TextLine, Vision

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AsyncClient",
    "AsyncModels",
    "AsyncNlp",
    "AsyncRecommendation",
    "AsyncResponses",
    "AsyncSpeech",
    "AsyncVision",
    "AudioSource",
    "Cancelled",
    "Category",
    "ClassifyResult",
    "Client",
    "DataLoss",
    "DeadlineExceeded",
    "Details",
    "EmbedResult",
    "FailedPrecondition",
    "FieldViolation",
    "HeadraceError",
    "ImageSource",
    "Internal",
    "InvalidArgument",
    "Item",
    "Model",
    "ModelInfo",
    "ModelVersion",
    "Models",
    "Nlp",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "RankedDocument",
    "Ranking",
    "RawAudio",
    "ReadTextResult",
    "Receipt",
    "Recommendation",
    "ResourceExhausted",
    "Responses",
    "Results",
    "Speech",
    "SpeechActivity",
    "SpeechSegment",
    "StreamingOptions",
    "StreamingResult",
    "TextLine",
    "Transcript",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "Vision",
    "WavChunks",
]

"""Python client of a Headrace inference mesh.

    import headrace

    with headrace.Client("127.0.0.1:8080") as client:
        results = client.vision.classify("photo.jpg")
        print(results[0].categories[0].label, results.receipt)

The generated stubs are beside it, for instance `headrace.vision.v1.vision_pb2`.
"""

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
from headrace._results import Category, Model, Receipt, Results
from headrace._vision import AsyncVision, ClassifyResult, EmbedResult, Vision

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AsyncClient",
    "AsyncVision",
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
    "Model",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "Receipt",
    "ResourceExhausted",
    "Results",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "Vision",
]

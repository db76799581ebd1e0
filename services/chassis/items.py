"""What requests and answers of all domains have in common: a list of items, and the model that answered."""

from collections.abc import Sized

from headrace.common.v1 import common_pb2
from services.chassis import errors
from services.chassis.models import LoadedModel


def check_count(field: str, items: Sized, most: int) -> None:
    """Refuse an empty list and one of more than `most` items. Raises INVALID_ARGUMENT naming `field`."""
    if not len(items):
        raise errors.invalid_argument(field, "is empty; send at least one")
    if len(items) > most:
        problem = f"has {len(items)} items; at most {most} are accepted in one call: send several calls"
        raise errors.invalid_argument(field, problem)


def reference(model: LoadedModel) -> common_pb2.ModelRef:
    """A model as answers name it."""
    return common_pb2.ModelRef(name=model.name, version=model.version)

"""The two networks that read a page, found by name and checked against what the reader's manifest says of them."""

import asyncio
from dataclasses import dataclass

from engines import reader_check
from engines.base import Signature
from engines.sections.reading import Reader
from engines.strict_toml import ConfigError
from services.chassis import errors
from services.chassis.errors import ServiceError
from services.chassis.models import LoadedModel, ModelHost


@dataclass(frozen=True, slots=True)
class Networks:
    """A reader, its detector, its numbers, and its characters in the order of the classes from 1 on."""

    reader: LoadedModel
    detector: LoadedModel
    numbers: Reader
    characters: tuple[str, ...]


class NetworkBook:
    """Finds networks; what it has read from a model's folder is kept while that model is served."""

    def __init__(self, host: ModelHost) -> None:
        self._host = host
        self._known: dict[str, Networks] = {}

    async def find(self, model: str) -> Networks:
        """The networks of the reader called `model`, "" being the default one.

        Raises ServiceError: what `ModelHost.resolve` raises, and UNAVAILABLE for a reader whose parts do not fit.
        """
        reader = self._host.resolve(model, "read_text")
        numbers = reader.manifest.reader if reader.manifest is not None else None
        assert numbers is not None  # noqa: S101  # The manifest was refused otherwise.
        detector = self._detector(reader, numbers.detector)
        key = f"{reader.name}@{reader.version}"
        known = self._known.get(key)
        if known is None or known.reader is not reader or known.detector is not detector:
            known = self._known[key] = await self._open(reader, detector, numbers)
        return known

    def _detector(self, reader: LoadedModel, name: str) -> LoadedModel:
        try:
            return self._host.resolve(name, "tensor")
        except ServiceError as error:
            if not error.reason.endswith("_NOT_FOUND"):
                raise
            problem = f"its detector '{name}' is not among the models of this service: pull it, or correct the manifest"
            raise errors.model_unavailable(reader.name, problem) from error

    async def _open(self, reader: LoadedModel, detector: LoadedModel, numbers: Reader) -> Networks:
        found = numbers.detection
        if problem := _mismatch(detector.signature, found.input, found.output):
            raise errors.model_unavailable(reader.name, f"its [reader] section does not fit {detector.name}: {problem}")
        assert reader.folder is not None  # noqa: S101  # It is READY.
        try:
            characters = await asyncio.to_thread(reader_check.characters, reader.folder, numbers.recognition)
        except ConfigError as error:
            raise errors.model_unavailable(reader.name, str(error)) from error
        return Networks(reader, detector, numbers, characters)


def _mismatch(signature: Signature, wanted: str, given: str) -> str:
    """What a detector lacks; "" when it takes pictures as `wanted` and gives the map `given`."""
    inputs = {spec.name: spec for spec in signature.inputs}
    if list(inputs) != [wanted] or inputs[wanted].datatype != "FP32" or len(inputs[wanted].shape) != 4:
        return f"it must have the one input '{wanted}', FP32 with 4 axes"
    return "" if given in {spec.name for spec in signature.outputs} else f"it has no output '{given}'"

"""The networks of the speech service by the names that callers use, each made ready once."""

import asyncio
from dataclasses import dataclass, field

from services.chassis import errors
from services.chassis.errors import ServiceError
from services.chassis.models import LoadedModel, ModelHost
from services.speech.transcriber import Transcriber
from services.speech.voice import VoiceDetector

Key = tuple[str, str]


@dataclass(slots=True)
class Networks:
    """Detectors and recognisers of one host. Belongs to its event loop."""

    host: ModelHost
    _transcribers: dict[Key, Transcriber] = field(default_factory=dict)
    _making: dict[Key, "asyncio.Task[Transcriber]"] = field(default_factory=dict)

    def detector(self, reference: str) -> VoiceDetector:
        """The detector called so, "" = the default. Raises what `ModelHost.resolve` raises."""
        return VoiceDetector(self.host, self.host.resolve(reference, "detect_speech"))

    def default_detector(self, recogniser: LoadedModel) -> VoiceDetector:
        """The detector that listens for a recogniser. Raises ServiceError UNAVAILABLE."""
        try:
            return self.detector("")
        except ServiceError as error:
            if error.reason == "MODEL_UNAVAILABLE":
                raise
            # The caller of a recogniser named no detector and could not have.
            problem = f"it needs a voice detector, and none is served ({error.message})"
            raise errors.model_unavailable(recogniser.name, problem) from error

    async def transcriber(self, reference: str, role: str = "") -> Transcriber:
        """The recogniser called so, "" = the default of `role`. Raises ServiceError."""
        model = self.host.resolve(reference, "recognize", role)
        key = (model.name, model.version)
        ready = self._transcribers.get(key)
        if ready is None or ready.model is not model:
            ready = self._transcribers[key] = await self._make(key, model)
        return ready

    async def _make(self, key: Key, model: LoadedModel) -> Transcriber:
        """Make it in a thread, for reading its files takes a while; all who wait for it wait for the same."""
        if key not in self._making:
            self._making[key] = asyncio.create_task(asyncio.to_thread(Transcriber, self.host, model))
            self._making[key].add_done_callback(lambda made: self._made(key, made))
        return await asyncio.shield(self._making[key])

    def _made(self, key: Key, made: "asyncio.Task[Transcriber]") -> None:
        self._making.pop(key, None)
        if not made.cancelled():
            made.exception()  # Whoever waited has it; that nobody waits any more is no fault.

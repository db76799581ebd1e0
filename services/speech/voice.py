"""Voice activity: how likely somebody speaks, for each 32 ms of sound."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engines.work import Work
from services.chassis.call import Call
from services.chassis.models import LoadedModel, ModelHost

Samples = npt.NDArray[np.float32]

#: Samples of one chunk, at 16 kHz.
CHUNK: Final = 512
#: Samples before a chunk that it is heard with.
_CONTEXT: Final = 64
_MEMORY: Final = (1, 2, 128)
#: Chunks of one engine run, 32 s: longer runs would only keep others waiting.
_MOST_CHUNKS: Final = 1024


@dataclass(frozen=True, slots=True)
class VoiceState:
    """What the detector remembers between two stretches of one recording: opaque, and as large for an hour."""

    memory: npt.NDArray[np.float32]
    context: Samples


class VoiceDetector:
    """Runs one loaded detector. Belongs to the event loop of `host`."""

    def __init__(self, host: ModelHost, model: LoadedModel) -> None:
        self._host = host
        self.model = model

    async def probabilities(
        self, samples: Samples, call: Call, *, deadline: float, state: VoiceState | None = None
    ) -> tuple[npt.NDArray[np.float32], VoiceState]:
        """The probability of speech in each chunk of 512 samples (16 kHz, mono, in [-1, 1]), and the state after them.

        The last chunk is filled up with silence: all but the last stretch of a stream must be whole chunks. The use of
        the model is recorded on `call`. Raises ServiceError.
        """
        if state is None:
            state = VoiceState(np.zeros(_MEMORY, np.float32), np.zeros(_CONTEXT, np.float32))
        found, outcomes = [np.zeros(0, np.float32)], []
        memory, context = state.memory, state.context
        for start in range(0, len(samples), _MOST_CHUNKS * CHUNK):
            sound = np.concatenate([context, samples[start : start + _MOST_CHUNKS * CHUNK]])
            inputs = {"audio": _windows(sound), "state": memory}
            outcome = await self._host.infer(self.model, Work(inputs, 1, deadline, call.trace))
            outcomes.append(outcome)
            found.append(outcome.outputs["speech"][0])
            memory, context = outcome.outputs["new_state"], sound[-_CONTEXT:]
        if outcomes:
            call.record(self.model.name, self.model.version, outcomes)
        return np.concatenate(found), VoiceState(memory, context)


def _windows(sound: Samples) -> npt.NDArray[np.float32]:
    """Context and chunks as [1, chunks, 576]; the last one filled up."""
    chunks = -(-(len(sound) - _CONTEXT) // CHUNK)
    whole = np.zeros(_CONTEXT + chunks * CHUNK, np.float32)
    whole[: len(sound)] = sound
    windows = np.lib.stride_tricks.sliding_window_view(whole, _CONTEXT + CHUNK)[::CHUNK]
    return np.ascontiguousarray(windows[np.newaxis])

"""Voice activity: how likely somebody speaks, for each 32 ms of sound."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.chassis.call import Call
from services.chassis.models import LoadedModel, ModelHost

Samples = npt.NDArray[np.float32]


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
        raise NotImplementedError

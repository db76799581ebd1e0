"""Speech to words by an encoder and a decoder with a key/value cache, each engine run through the batcher."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.chassis.call import Call
from services.chassis.models import LoadedModel, ModelHost

Samples = npt.NDArray[np.float32]

#: The longest stretch that is heard at once.
MAX_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What was understood. `text` is "" where nothing was said.

    `confidence`: exp of the mean log probability of the tokens, 0..1. `no_speech`: how sure the decoder is that nobody
    speaks, 0..1. `language`: BCP-47.
    """

    text: str
    tokens: tuple[int, ...]
    confidence: float
    no_speech: float
    language: str


@dataclass(frozen=True, slots=True)
class Listening:
    """How to listen to one stretch.

    `deadline`: absolute monotonic seconds. `language`: BCP-47, "" = the model's own, or detected. `prompt`: what was
    said before. `full_window`: hear the stretch in a window of 30 s as in training; otherwise the window ends soon
    after the sound, which is several times quicker for short stretches and nearly as good.
    """

    deadline: float
    language: str = ""
    prompt: str = ""
    full_window: bool = True


class Transcriber:
    """Runs one loaded recogniser. Making one reads files: make it in a thread, then use it on the loop of `host`.

    Raises ServiceError when the recogniser's encoder is not served or its tokenizer cannot be read.
    """

    def __init__(self, host: ModelHost, model: LoadedModel) -> None:
        self._host = host
        self.model = model

    @property
    def languages(self) -> frozenset[str]:
        """BCP-47 languages that may be asked for, without regions: "en", "zh", ..."""
        raise NotImplementedError

    def language(self, code: str) -> str:
        """The language of the model that the BCP-47 `code` means ("en-GB" -> "en", "" -> "").

        Raises ServiceError INVALID_ARGUMENT on `language_code`, naming what is allowed.
        """
        raise NotImplementedError

    async def transcribe(self, samples: Samples, call: Call, listening: Listening) -> Hypothesis:
        """Words of at most 30 s of sound: 16 kHz, mono, in [-1, 1].

        The use of encoder and decoder is recorded on `call`, the decoder last. Raises ServiceError.
        """
        raise NotImplementedError

    async def detect_language(self, samples: Samples, call: Call, listening: Listening) -> tuple[str, float]:
        """The likeliest language of the first 30 s, BCP-47, and its probability 0..1. Raises ServiceError."""
        raise NotImplementedError

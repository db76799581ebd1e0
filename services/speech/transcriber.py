"""Speech to words by an encoder and a decoder with a key/value cache, each engine run through the batcher."""

import asyncio
import math
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from engines.base import Tensors
from engines.manifest import Manifest
from engines.sections.speech import Recognizer
from engines.work import Outcome, Work
from services.chassis import errors
from services.chassis.call import Call
from services.chassis.models import LoadedModel, ModelHost
from services.chassis.telemetry import span
from services.speech import decoding
from services.speech.decoding import Greedy, Rules, Said
from services.speech.mel import FULL_WINDOW, HOP, SAMPLE_RATE, log_mel
from services.speech.tokens import Tokens, TokensError

Samples = npt.NDArray[np.float32]

#: The longest stretch that is heard at once.
MAX_SECONDS: Final = 30.0
_FRAMES_A_SECOND: Final = SAMPLE_RATE // HOP
#: Windows are whole seconds: rows of one shape share batches.
_WINDOW_STEP: Final = _FRAMES_A_SECOND
#: The longest window but the full one, in frames.
_SHORT_WINDOW: Final = 1500
#: Places of the decoder, and what the cache grows by.
_MOST_PLACES: Final = 448
_CACHE_STEP: Final = 64
#: Tokens of what was said before that the decoder is told.
_MOST_BEFORE: Final = 64


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What was understood. `text` has no spaces at its ends; it is "" where nothing was said.

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
    said before. `full_window`: hear the stretch in a window of 30 s as in training; otherwise the window of a short one
    ends soon after the sound, which is several times quicker and as good: what looks wrong is heard again in full,
    unless `once` is asked for by who has no time.
    """

    deadline: float
    language: str = ""
    prompt: str = ""
    full_window: bool = False
    once: bool = False


@dataclass(slots=True)
class _Run:
    """One stretch on its way through the decoder: what is cached, and what it has cost so far."""

    call: Call
    deadline: float
    states: npt.NDArray[np.float32]
    cache: npt.NDArray[np.float32]
    place: int = 0
    outcomes: list[Outcome] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Heard:
    """What one pass over a stretch gave."""

    said: Said
    language: str


class Transcriber:
    """Runs one loaded recogniser. Making one reads files: make it in a thread, then use it on the loop of `host`.

    Raises ServiceError when the recogniser's encoder is not served or its tokenizer cannot be read.
    """

    def __init__(self, host: ModelHost, model: LoadedModel) -> None:
        self._host = host
        self.model = model
        self._section = _section(model)
        self._tokens = _tokens(model, self._section)
        self._cache_shape, width, size = _sizes(model)
        self._masks = self._tokens.masks(size)
        encoder = self._encoder()
        if [spec.shape[-1] for spec in encoder.signature.outputs] != [width]:
            problem = f"its encoder '{encoder.name}' has no single output of {width} values"
            raise errors.model_unavailable(model.name, problem)

    @property
    def languages(self) -> frozenset[str]:
        """BCP-47 languages that may be asked for, without regions: "en", "zh", ..."""
        return frozenset(self._tokens.languages)

    def language(self, code: str) -> str:
        """The language of the model that the BCP-47 `code` means ("en-GB" -> "en", "" -> "").

        Raises ServiceError INVALID_ARGUMENT on `language_code`, naming what is allowed.
        """
        if not code:
            return ""
        found = self._tokens.language(code)
        if found is None:
            known = sorted(self._tokens.languages)
            listed = ", ".join(known[:16]) + (f" and {len(known) - 16} more" if len(known) > 16 else "")
            problem = f"is {errors.quote(code)}; model {errors.quote(self.model.name)} knows: {listed}"
            raise errors.invalid_argument("language_code", problem)
        return found

    @property
    def full_window(self) -> bool:
        """Whether what is final is to be heard in a full window: the model's manifest says so."""
        return self._section.full_window

    async def transcribe(self, samples: Samples, call: Call, listening: Listening) -> Hypothesis:
        """Words of at most 30 s of sound: 16 kHz, mono, in [-1, 1].

        The use of encoder and decoder is recorded on `call`, the decoder last. Raises ServiceError.
        """
        frames = FULL_WINDOW if listening.full_window else self._frames(len(samples))
        heard = await self._heard(samples, frames, call, listening)
        if frames < FULL_WINDOW and not listening.once and decoding.doubtful(heard.said):
            heard = await self._heard(samples, FULL_WINDOW, call, listening)
        said = decoding.settled(heard.said)
        text = self._tokens.text(said.tokens)
        confidence = math.exp(said.chance) if text else 0.0
        return Hypothesis(text, tuple(said.tokens) if text else (), confidence, said.no_speech, heard.language)

    async def detect_language(self, samples: Samples, call: Call, listening: Listening) -> tuple[str, float]:
        """The likeliest language of the first 30 s, BCP-47, and its probability 0..1. Raises ServiceError."""
        frames = FULL_WINDOW if listening.full_window else self._frames(len(samples))
        run = await self._encode(samples, frames, call, listening)
        try:
            return self._likeliest(await self._step(run, self._tokens.detection()))
        finally:
            self._record(run)

    async def _encode(self, samples: Samples, frames: int, call: Call, listening: Listening) -> _Run:
        """The sound in a window of `frames` as states, and an empty cache."""
        with span(call, "transform"):
            mel = await asyncio.to_thread(log_mel, samples, frames, blank=frames == FULL_WINDOW)
        encoder = self._encoder()
        inputs = {encoder.signature.inputs[0].name: mel[np.newaxis]}
        outcome = await self._host.infer(encoder, Work(inputs, 1, listening.deadline, call.trace))
        call.record(encoder.name, encoder.version, [outcome])
        states = next(iter(outcome.outputs.values()))
        return _Run(call, listening.deadline, states, np.zeros(self._cache_shape, np.float32))

    def _frames(self, samples: int) -> int:
        """The window of a stretch: that of training where a shorter one would save little."""
        section = self._section
        seconds = max(samples / SAMPLE_RATE + section.margin_seconds, section.window_seconds)
        frames = _WINDOW_STEP * math.ceil(seconds * _FRAMES_A_SECOND / _WINDOW_STEP)
        return frames if frames <= _SHORT_WINDOW else FULL_WINDOW

    async def _heard(self, samples: Samples, frames: int, call: Call, listening: Listening) -> _Heard:
        run = await self._encode(samples, frames, call, listening)
        tokens = self._tokens
        try:
            language = self.language(listening.language) or self._own_language()
            before = tokens.before(listening.prompt, _MOST_BEFORE)
            if language:
                logits = await self._step(run, [*before, *tokens.prompt(language)])
                silence = logits[len(before)]
            else:
                logits = await self._step(run, tokens.detection())
                language, silence = self._likeliest(logits)[0], logits[0]
                logits = await self._step(run, tokens.prompt(language)[1:])
            greedy = await self._greedy(run, logits[-1], min(len(samples) / SAMPLE_RATE, MAX_SECONDS))
            return _Heard(greedy.said(decoding.probability(silence, tokens.no_speech)), language)
        finally:
            self._record(run)

    async def _greedy(self, run: _Run, logits: npt.NDArray[np.float32], seconds: float) -> Greedy:
        first, later = self._masks
        most = decoding.most_tokens(seconds, _MOST_PLACES - run.place)
        short = run.states.shape[1] < FULL_WINDOW // 2
        plenty = decoding.plenty_of_tokens(seconds) if short else 0
        greedy = Greedy(Rules(first, later, self._tokens.end, most, plenty))
        begin = run.place
        greedy.take(logits)
        while not greedy.done:
            # After a return, the last token is computed anew, and what lay behind it is overwritten.
            run.place = begin + max(len(greedy.tokens) - 1, 0)
            logits = (await self._step(run, greedy.tokens[-1:]))[-1]
            greedy.take(logits)
        return greedy

    async def _step(self, run: _Run, tokens: list[int]) -> npt.NDArray[np.float32]:
        """Run `tokens` at the run's place, cache what comes of them; the logits after each, [tokens, vocabulary]."""
        end = run.place + len(tokens)
        if end > run.cache.shape[3]:
            room = _CACHE_STEP * math.ceil(end / _CACHE_STEP)
            grown = np.zeros((*run.cache.shape[:3], room, run.cache.shape[4]), np.float32)
            grown[:, :, :, : run.cache.shape[3]] = run.cache
            run.cache = grown
        inputs: Tensors = {
            "tokens": np.array([tokens], np.int64),
            "position": np.array([run.place], np.int64),
            "cache": run.cache,
            "states": run.states,
        }
        outcome = await self._host.infer(self.model, Work(inputs, 1, run.deadline, run.call.trace))
        run.cache[:, :, :, run.place : end] = outcome.outputs["new_cache"]
        run.place = end
        logits: npt.NDArray[np.float32] = outcome.outputs["logits"][0]
        run.outcomes.append(replace(outcome, outputs={}))
        return logits

    def _likeliest(self, logits: npt.NDArray[np.float32]) -> tuple[str, float]:
        names = list(self._tokens.languages)
        scores = logits[-1, [self._tokens.languages[name] for name in names]]
        best = int(scores.argmax())
        return names[best], decoding.probability(scores, best)

    def _own_language(self) -> str:
        return next(iter(self._tokens.languages)) if len(self._tokens.languages) == 1 else ""

    def _encoder(self) -> LoadedModel:
        return self._host.resolve(self._section.encoder, "tensor")

    def _record(self, run: _Run) -> None:
        if run.outcomes:
            run.call.record(self.model.name, self.model.version, run.outcomes)


def _section(model: LoadedModel) -> Recognizer:
    manifest: Manifest | None = model.manifest
    if manifest is None or manifest.recognizer is None:
        raise errors.model_unavailable(model.name, "its manifest has no [recognizer] section")
    return manifest.recognizer


def _tokens(model: LoadedModel, section: Recognizer) -> Tokens:
    if model.folder is None:
        raise errors.model_unavailable(model.name, "it has no folder")
    try:
        return Tokens(model.folder / section.tokenizer, model.folder / section.config, section.languages)
    except TokensError as error:
        raise errors.model_unavailable(model.name, str(error)) from error


def _sizes(model: LoadedModel) -> tuple[tuple[int, ...], int, int]:
    """An empty cache's shape, the width of a state and the size of the vocabulary, from the decoder's signature."""
    inputs = {spec.name: spec.shape for spec in model.signature.inputs}
    outputs = {spec.name: spec.shape for spec in model.signature.outputs}
    if set(inputs) != {"tokens", "position", "cache", "states"} or not {"logits", "new_cache"} <= set(outputs):
        raise errors.model_unavailable(model.name, "it is no decoder as the zoo's recipes make them")
    kinds, heads, _, head = (size if isinstance(size, int) else 0 for size in inputs["cache"][1:])
    width, vocabulary = inputs["states"][-1], outputs["logits"][-1]
    return (1, kinds, heads, _CACHE_STEP, head), int(width), int(vocabulary)

"""The policy of decoding: which token comes next, when to stop, and what not to believe. Pure: no engine, no clock.

Greedy, as OpenAI's temperature 0. Where that runs into a loop, OpenAI draws again at random temperatures; here the
decoder goes back to where the loop began and must leave it, so that the same sound gives the same words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]

#: Nobody speaks, says the decoder this surely, and the words that it found all the same are less likely than this
#: (mean log probability of a token; OpenAI's figures) ...
_SURE_OF_SILENCE: Final = 0.6
_UNLIKELY_WORDS: Final = -1.0
#: ... up to here: the "you" and "Thank you." that it hears in silence are all but certain to it.
_SUREST_OF_SILENCE: Final = 0.95
_LIKELY_WORDS: Final = -0.2
#: Words less likely than this are guesses, whatever else is said.
_GUESSED_WORDS: Final = -1.8
#: A text says the same again and again whose runs of so many tokens occur more than this many times each.
_RUN: Final = 4
_MOST_REPEATS: Final = 2.2
#: A phrase of so many tokens at most is looked for again and again ...
_LONGEST_PHRASE: Final = 24
#: ... so often at least, and over so many tokens.
_REPEATS: Final = 4
_LOOP_TOKENS: Final = 10
_MOST_RETURNS: Final = 3
#: Tokens a second of slow speech.
_SLOW_TOKENS: Final = 1.5
#: So many tokens are seldom said twice in a row.
_SENTENCE: Final = 5


@dataclass(frozen=True, slots=True)
class Rules:
    """What a transcript obeys: the masks `first` and `later` of Tokens.masks, the token `end`, `most` tokens.

    `plenty`: where the decoder is known to say the same sentence twice, because it sees no silence behind the sound,
    so many tokens are enough for the sound: what follows them a second time is left out. 0 = elsewhere.
    """

    first: Logits
    later: Logits
    end: int
    most: int
    plenty: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """A transcript. `chance`: mean log probability of its tokens and end.

    `looped`: it went in circles on the way, and did not just end where they had begun.
    """

    tokens: tuple[int, ...]
    chance: float
    no_speech: float
    looped: bool


@dataclass(slots=True)
class Greedy:
    """One transcript under way.

    `tokens` so far, without the end; `chances` are their log probabilities. `done`: no more is to be asked for.
    """

    rules: Rules
    tokens: list[int] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)
    done: bool = False
    looped: bool = False
    _banned: dict[int, set[int]] = field(default_factory=dict)
    _returns: int = 0
    _last: float | None = None

    def take(self, logits: Logits) -> None:
        """Choose what follows `tokens` by `logits` [vocabulary]; may shorten `tokens` where they go in circles."""
        place = len(self.tokens)
        scores = logits + (self.rules.later if self.tokens else self.rules.first)
        for token in self._banned.get(place, ()):
            scores[token] = -np.inf
        best = int(scores.argmax())
        chance = -float(np.log(np.exp(scores - scores[best]).sum()))
        if best == self.rules.end or not np.isfinite(chance):
            self._last, self.done = chance, True
            if self.rules.plenty and len(self.tokens) >= self.rules.plenty:
                self.looped = self._returns > 1 or (self.looped and place not in self._banned)
            return
        self.tokens.append(best)
        self.chances.append(chance)
        self.done = len(self.tokens) >= self.rules.most
        if phrase := loop(self.tokens) or (doubled(self.tokens) if self.rules.plenty else 0):
            self._leave(phrase)

    def said(self, no_speech: float) -> Said:
        """What came of it; `no_speech`: the probability that the decoder gave to silence before the first token."""
        chances = self.chances if self._last is None else [*self.chances, self._last]
        chance = float(np.mean(chances)) if chances else 0.0
        return Said(tuple(self.tokens), chance, no_speech, self.looped)

    def _leave(self, phrase: int) -> None:
        """Go back to where the loop of `phrase` tokens began its second round, and forbid what began it."""
        tokens, self.looped = self.tokens, True
        start = len(tokens)
        while start > phrase and tokens[start - 1] == tokens[start - 1 - phrase]:
            start -= 1
        self._banned.setdefault(start, set()).add(tokens[start])
        del self.tokens[start:], self.chances[start:]
        self._returns += 1
        self.done = self._returns > _MOST_RETURNS


def loop(tokens: list[int]) -> int:
    """The length of the phrase that `tokens` end with several times over; 0 = none."""
    for phrase in range(1, min(_LONGEST_PHRASE, len(tokens) // _REPEATS) + 1):
        span = max(phrase * _REPEATS, _LOOP_TOKENS)
        if len(tokens) >= span and tokens[-span + phrase :] == tokens[-span : len(tokens) - phrase]:
            return phrase
    return 0


def doubled(tokens: Sequence[int]) -> int:
    """How many tokens at the end say once more what stands right before them, `_SENTENCE` or more; 0 = none."""
    for phrase in range(len(tokens) // 2, _SENTENCE - 1, -1):
        if tokens[-phrase:] == tokens[-2 * phrase : -phrase]:
            return phrase
    return 0


def collapsed(tokens: Sequence[int]) -> Sequence[int]:
    """`tokens` without what their end says more than once."""
    while extra := doubled(tokens):
        tokens = tokens[:-extra]
    return tokens


def believable(said: Said) -> bool:
    """False for words that were made up where nobody speaks."""
    if said.chance < _GUESSED_WORDS:
        return False
    if said.no_speech < _SURE_OF_SILENCE:
        return True
    sure = min(1.0, (said.no_speech - _SURE_OF_SILENCE) / (_SUREST_OF_SILENCE - _SURE_OF_SILENCE))
    return said.chance >= _UNLIKELY_WORDS + sure * (_LIKELY_WORDS - _UNLIKELY_WORDS)


def doubtful(said: Said) -> bool:
    """True for what a short window may have brought about: sentences said twice, loops, guesses."""
    return said.looped or bool(doubled(said.tokens)) or (bool(said.tokens) and not believable(said))


def settled(said: Said) -> Said:
    """What is to be told of it: nothing of what is not believable, and once what is said over and over."""
    if not believable(said):
        return replace(said, tokens=())
    return replace(said, tokens=tuple(collapsed(said.tokens))) if repetitive(said.tokens) else said


def repetitive(tokens: Sequence[int]) -> bool:
    """True for tokens that say the same again and again."""
    runs = [tuple(tokens[place : place + _RUN]) for place in range(len(tokens) - _RUN + 1)]
    return len(runs) > _MOST_REPEATS * len(set(runs))


def most_tokens(seconds: float, room: int) -> int:
    """How many tokens a stretch may have: nobody says more in `seconds`, and no more than `room` fit the decoder."""
    return max(1, min(room, 16 + int(30 * seconds)))


def plenty_of_tokens(seconds: float) -> int:
    """How many tokens a stretch has that is spoken slowly but without long pauses; at least one."""
    return 1 + int(_SLOW_TOKENS * seconds)


def probability(logits: Logits, token: int) -> float:
    """The share of one token, 0..1."""
    exponents = np.exp(logits - logits.max())
    return float(exponents[token] / exponents.sum())

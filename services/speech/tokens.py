"""The tokens of a Whisper model: words to numbers and back, the special ones, and languages by BCP-47."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

#: Whisper's names of languages -> BCP-47, where they differ.
_TO_BCP47: Final = {"jw": "jv", "iw": "he"}
#: Other primary subtags that mean a language of Whisper's.
_SAME_AS: Final = {"nb": "no", "cmn": "zh", "fil": "tl", "in": "id", "ji": "yi", "mo": "ro", "iw": "he", "jw": "jv"}
_LANGUAGE: Final = re.compile(r"<\|([a-z]{2,3})\|>")
_CODE: Final = re.compile(r"([A-Za-z]{2,8})([-_][A-Za-z0-9]{1,8})*")
#: The vocabulary of GPT-2 ends with this token; models with it know English only and are not told the language.
_ENGLISH_END: Final = 50_256


class TokensError(ValueError):
    """A tokenizer or its configuration cannot be used; the message names the file and what is wrong."""


class Tokens:
    """What one model's numbers mean. `languages`: those it may be asked for, as Whisper calls them; () = all it knows.

    Reads `tokenizer` (Hugging Face's format) and `config` (CTranslate2's: what is never said). Raises TokensError.
    """

    def __init__(self, tokenizer: Path, config: Path, languages: Sequence[str] = ()) -> None:
        self._tokenizer = _tokenizer(tokenizer)
        special = {token.content: number for number, token in self._tokenizer.get_added_tokens_decoder().items()}
        try:
            self.end = special["<|endoftext|>"]
            self._start = special["<|startoftranscript|>"]
            self._transcribe = special["<|transcribe|>"]
            self._before = special["<|startofprev|>"]
            self._plain = special["<|notimestamps|>"]
            self.no_speech = special["<|nospeech|>" if "<|nospeech|>" in special else "<|nocaptions|>"]
        except KeyError as error:
            raise TokensError(f"{tokenizer}: has no token {error}, so it is not Whisper's") from error
        self.english_only = self.end == _ENGLISH_END
        known = {match[1]: number for name, number in special.items() if (match := _LANGUAGE.fullmatch(name))}
        if missing := set(languages) - known.keys():
            raise TokensError(f"{tokenizer}: has no token for the language '{min(missing)}' of the manifest")
        chosen = set(languages) or ({"en"} if self.english_only else known.keys())
        #: BCP-47 -> token.
        self.languages = {_TO_BCP47.get(name, name): known[name] for name in known if name in chosen}
        self._never, self._never_first = _suppressed(config)

    def language(self, code: str) -> str | None:
        """The model's language that a BCP-47 tag means ("en-GB" -> "en"); None when it knows no such language."""
        match = _CODE.fullmatch(code)
        if match is None:
            return None
        name = match[1].lower()
        name = name if name in self.languages else _SAME_AS.get(name, name)
        return name if name in self.languages else None

    def detection(self) -> list[int]:
        """The prompt after which the most likely token is the language."""
        return [self._start]

    def prompt(self, language: str) -> list[int]:
        """What every transcript without timestamps begins with; the first is the token that `detection` gives."""
        if self.english_only:
            return [self._start, self._plain]
        return [self._start, self.languages[language], self._transcribe, self._plain]

    def before(self, text: str, most: int) -> list[int]:
        """The last `most` tokens of what was said before, as they go in front of the prompt."""
        said = self._tokenizer.encode(" " + text.strip(), add_special_tokens=False).ids if text.strip() else []
        return [self._before, *said[-most:]] if said else []

    def text(self, tokens: Sequence[int]) -> str:
        """The words of `tokens`, without spaces at the ends."""
        words: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return words.strip().strip("\N{REPLACEMENT CHARACTER}").strip()

    def masks(self, size: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """What is added to `size` logits before the first token, and before others: -inf for what must not be said.

        Beside what the configuration forbids, these are all special tokens but the end, and timestamps.
        """
        later = np.zeros(size, np.float32)
        later[self.end + 1 :] = -np.inf
        later[[number for number in self._never if number < size]] = -np.inf
        first = later.copy()
        first[[number for number in self._never_first if number < size]] = -np.inf
        return first, later


def _tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_buffer(path.read_bytes())
    except OSError as error:
        raise TokensError(f"{path}: cannot be read ({error.strerror}); pull the model again") from error
    except Exception as error:
        # The library raises bare exceptions.
        raise TokensError(f"{path}: is not a tokenizer ({str(error)[:200]}); pull the model again") from error


def _suppressed(path: Path) -> tuple[list[int], list[int]]:
    try:
        config = json.loads(path.read_bytes())
        return (
            [int(number) for number in config["suppress_ids"] if int(number) >= 0],
            [int(number) for number in config["suppress_ids_begin"] if int(number) >= 0],
        )
    except OSError as error:
        raise TokensError(f"{path}: cannot be read ({error.strerror}); pull the model again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise TokensError(f"{path}: lacks suppress_ids or suppress_ids_begin; pull the model again") from error

"""Texts to token ids. The tokenizer's own threads are off: a text is worked on in the thread that asks."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tokenizers import Encoding, Tokenizer

# Read at each call: the pool that the library would start belongs to nobody's share of the cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

#: Of a longer text only a beginning is read, four times as much until there are tokens enough.
_CHARACTERS_PER_TOKEN: Final = 32
_GROWTH: Final = 4
_LONGEST_WORD: Final = 1000
_PADDING_NAMES: Final = ("[PAD]", "<pad>")

#: A text, or a query and a document to be read together.
Source = str | tuple[str, str]


class TokenizerError(Exception):
    """A tokenizer file that cannot be used; the message names it."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text as a model reads it: `ids` with special tokens, the `types` of each; `cut`: there was more of it."""

    ids: list[int]
    types: list[int]
    cut: bool

    def __len__(self) -> int:
        return len(self.ids)


class TextTokenizer:
    """A `tokenizer.json`, cutting at `max_tokens`. Its settings never change, so that threads may share it."""

    def __init__(self, path: Path, max_tokens: int) -> None:
        try:
            self._tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise TokenizerError(f"{path} cannot be read: {error.strerror}") from error
        except Exception as error:
            # The library raises bare Exceptions.
            raise TokenizerError(f"{path} is no tokenizer file: {str(error)[:200]}") from error
        special = self._tokenizer.num_special_tokens_to_add(True)
        if special >= max_tokens:
            raise TokenizerError(f"{path} adds {special} special tokens, max_tokens is {max_tokens}")
        self.pad_id = self._padding()
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._piece = max_tokens * _CHARACTERS_PER_TOKEN

    def encode(self, sources: Sequence[Source]) -> list[Tokens]:
        """The tokens of each; other threads run meanwhile (`encode_batch` lets go of the GIL, `encode` does not)."""
        beginnings = [self._beginning(source) for source in sources]
        encoded = self._tokenizer.encode_batch_fast(beginnings)
        return [self._tokens(*parts) for parts in zip(sources, beginnings, encoded, strict=True)]

    def _tokens(self, source: Source, beginning: Source, encoding: Encoding) -> Tokens:
        limit = self._piece
        while not encoding.overflowing and beginning != source:
            limit *= _GROWTH
            beginning = self._beginning(source, limit)
            encoding = self._tokenizer.encode_batch_fast([beginning])[0]
        return Tokens(encoding.ids, encoding.type_ids, bool(encoding.overflowing))

    def _beginning(self, source: Source, limit: int = 0) -> Source:
        limit = limit or self._piece
        if isinstance(source, str):
            return _beginning(source, limit)
        return _beginning(source[0], limit), _beginning(source[1], limit)

    def _padding(self) -> int:
        """The id that fills rows up: some networks tell places from it, mask or not."""
        padding = self._tokenizer.padding
        if padding is not None:
            return int(padding["pad_id"])
        found = (self._tokenizer.token_to_id(name) for name in _PADDING_NAMES)
        return next((int(token) for token in found if token is not None), 0)


def _beginning(text: str, limit: int) -> str:
    """At most `limit` characters, cut between words where there are any."""
    if len(text) <= limit:
        return text
    end = limit
    while end > limit - _LONGEST_WORD and not text[end].isspace():
        end -= 1
    return text[: end if text[end].isspace() else limit]

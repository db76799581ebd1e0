"""The tokenizers of the models, and the threads that run them: the event loop waits for no long text."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from engines.sections.text import IDS
from services.chassis import errors
from services.chassis.models import LoadedModel
from services.nlp.tokens import Source, TextTokenizer, TokenizerError, Tokens

#: Characters of one call that are read where they arrive: that takes 0.2 ms, the way to a thread and back as much.
_AT_ONCE: Final = 1000
#: Characters and texts of one call that a thread reads before another call has its turn.
_PIECE_CHARACTERS: Final = 100_000
_PIECE_TEXTS: Final = 128
_MAX_WAITING: Final = 512
#: What a piece is taken to last, for callers that are told to come again.
_PIECE_SECONDS: Final = 0.01


class Tokenizers:
    """Reads texts for models. A tokenizer is loaded when its model is first called, in a thread."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tokenize")
        self._threads = threads
        self._known: dict[tuple[str, str], TextTokenizer] = {}
        self._waiting = 0

    async def of(self, model: LoadedModel) -> TextTokenizer:
        """The model's tokenizer. Raises ServiceError UNAVAILABLE: there is none, or it is damaged."""
        key = (model.name, model.version)
        known = self._known.get(key)
        if known is None:
            try:
                known = await asyncio.get_running_loop().run_in_executor(self._pool, _load, model)
            except TokenizerError as error:
                raise errors.model_unavailable(model.name, str(error)) from error
            self._known[key] = known
        return known

    async def encode(self, model: LoadedModel, sources: Sequence[Source]) -> list[Tokens]:
        """The tokens of each source, in order. Raises ServiceError UNAVAILABLE or QUEUE_FULL."""
        tokenizer = await self.of(model)
        if sum(map(_characters, sources)) <= _AT_ONCE:
            return tokenizer.encode(sources)
        if self._waiting >= _MAX_WAITING:
            raise errors.queue_full(model.name, self._waiting * _PIECE_SECONDS / self._threads)
        loop, found = asyncio.get_running_loop(), []
        self._waiting += 1
        try:
            for piece in _pieces(sources):
                found += await loop.run_in_executor(self._pool, tokenizer.encode, piece)
        finally:
            self._waiting -= 1
        return found

    def close(self) -> None:
        """Drop what waits; what is being read ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _load(model: LoadedModel) -> TextTokenizer:
    text = model.manifest.text if model.manifest is not None else None
    if text is None or model.folder is None:
        raise TokenizerError("its manifest has no [text] section")
    versioned = model.folder / model.version / text.tokenizer
    path = versioned if versioned.is_file() else Path(model.folder) / text.tokenizer
    return TextTokenizer(path, min(text.max_tokens, fixed_length(model) or text.max_tokens))


def fixed_length(model: LoadedModel) -> int:
    """The number of tokens that every row of the model has; 0 where it takes any."""
    size = next((spec.shape[1] for spec in model.signature.inputs if spec.name == IDS), 0)
    return size if isinstance(size, int) else 0


def _characters(source: Source) -> int:
    return len(source) if isinstance(source, str) else len(source[0]) + len(source[1])


def _pieces(sources: Sequence[Source]) -> Iterator[list[Source]]:
    piece: list[Source] = []
    characters = 0
    for source in sources:
        size = _characters(source)
        if piece and (len(piece) >= _PIECE_TEXTS or characters + size > _PIECE_CHARACTERS):
            yield piece
            piece, characters = [], 0
        piece.append(source)
        characters += size
    yield piece

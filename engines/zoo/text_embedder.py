"""Embeds many texts while a model is built: the same network and tokenizer that will serve."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from engines.base import Array
from engines.sections.text import IDS, MASK
from engines.zoo.all_minilm_l6_v2 import MAX_TOKENS

_BATCH_TOKENS: Final = 512
_THREADS: Final = 2
_TELL_EVERY: Final = 16


class TextEmbedder:
    """all-MiniLM-L6-v2 as its recipe built it (`files` of the model's folder)."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(files["1/model.onnx"], options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
        self._tokenizer.enable_truncation(MAX_TOKENS)

    def embed(self, texts: Sequence[str], told: Callable[[int, int], None]) -> Array:
        """Unit vectors [texts, 384], float64; `told` hears how many of how many texts are done."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        batches = _batches(ids)
        vectors: Array = np.empty((len(ids), 0))
        done = 0
        # One session serves both threads: runs share its weights, and each computes in the thread that asks.
        with ThreadPoolExecutor(_THREADS) as pool:
            for number, (batch, rows) in enumerate(
                zip(batches, pool.map(self._run, _tensors(ids, batches)), strict=True)
            ):
                if not done:
                    vectors = np.empty((len(ids), rows.shape[1]))
                vectors[batch] = rows
                done += len(batch)
                if number % _TELL_EVERY == 0 or done == len(ids):
                    told(done, len(ids))
        return vectors

    def _run(self, inputs: Mapping[str, Array]) -> Array:
        rows: Array = self._session.run(None, dict(inputs))[0]
        return rows


def _batches(ids: Sequence[Sequence[int]]) -> list[list[int]]:
    """Places of texts of like length, shortest first, in batches of `_BATCH_TOKENS` with padding."""
    batches: list[list[int]] = []
    for place in sorted(range(len(ids)), key=lambda place: len(ids[place])):
        if not batches or (len(batches[-1]) + 1) * len(ids[place]) > _BATCH_TOKENS:
            batches.append([])
        batches[-1].append(place)
    return batches


def _tensors(ids: Sequence[Sequence[int]], batches: Sequence[Sequence[int]]) -> list[Mapping[str, Array]]:
    made: list[Mapping[str, Array]] = []
    for batch in batches:
        length = max(len(ids[place]) for place in batch)
        padded = np.array([[*ids[place], *[0] * (length - len(ids[place]))] for place in batch], np.int64)
        mask = np.array([[column < len(ids[place]) for column in range(length)] for place in batch], np.int64)
        made.append({IDS: padded, MASK: mask})
    return made

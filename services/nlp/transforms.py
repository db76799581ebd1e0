"""Tokens to tensors, outputs to vectors, vectors to scores. Pure numpy."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engines.sections.text import IDS, MASK, TYPES
from services.nlp.tokens import Tokens

Floats = npt.NDArray[np.float32]

#: What each input is filled up with, but for the ids, whose padding the tokenizer names.
_ABSENT: Final = 0


def inputs(tokens: Sequence[Tokens], length: int, dtypes: Mapping[str, np.dtype[Any]], pad_id: int) -> dict[str, Any]:
    """The tensors [rows, length] that a network has, by name; `dtypes` are those of its inputs."""
    made = {}
    for name, dtype in dtypes.items():
        tensor = np.full((len(tokens), length), pad_id if name == IDS else _ABSENT, dtype)
        for row, text in enumerate(tokens):
            if name == IDS:
                tensor[row, : len(text)] = text.ids
            elif name == MASK:
                tensor[row, : len(text)] = 1
            elif name == TYPES:
                tensor[row, : len(text)] = text.types
        made[name] = tensor
    return made


def pooled(states: npt.NDArray[Any], lengths: Sequence[int], pooling: str) -> npt.NDArray[Any]:
    """One vector a text, [rows, width]: of states [rows, tokens, width] the first ("cls") or the mean of `lengths`."""
    if states.ndim == 2:
        return states
    if pooling == "cls":
        return states[:, 0]
    kept = np.arange(states.shape[1]) < np.asarray(lengths)[:, None]
    total = np.einsum("rtw,rt->rw", states.astype(np.float32, copy=False), kept.astype(np.float32))
    return np.asarray(total / np.maximum(kept.sum(1, keepdims=True), 1), np.float32)


def unit(vectors: npt.NDArray[Any]) -> Floats:
    """Rows scaled to length 1; a row of zeros stays."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(lengths > 0.0, lengths, 1.0), np.float32)


def activated(scores: npt.NDArray[Any], activation: str) -> Floats:
    """Scores [rows, classes] as the manifest's `activation` makes them: softmax, sigmoid or none."""
    values = scores.astype(np.float64)
    if activation == "softmax":
        powers = np.exp(values - values.max(1, keepdims=True))
        values = powers / powers.sum(1, keepdims=True)
    elif activation == "sigmoid":
        # In halves, so that neither sign overflows.
        values = 0.5 * (1.0 + np.tanh(0.5 * values))
    return values.astype(np.float32)


def zero_shot(texts: Floats, labels: Floats, temperature: float) -> Floats:
    """How well each label suits each text, [texts, labels], rows adding up to 1; both are of unit length."""
    return activated(texts @ labels.T / np.float32(temperature), "softmax")


def best(values: Floats, count: int) -> list[int]:
    """Places of the `count` largest of `values`, largest first; equal ones in their order."""
    order: list[int] = np.argsort(-values, kind="stable")[:count].tolist()
    return order

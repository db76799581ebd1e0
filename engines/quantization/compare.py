"""What a quantised network loses against its original on held-out inputs, and what it gains in speed."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from engines.base import Array, Engine, Tensors
from engines.manifest import Manifest
from engines.sections.text import MASK

_ROUNDS: Final = 7
_LEAST_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Figures:
    """Measured on held-out inputs. `losses` count against the tolerance, `others` are for the reader; shares of 1."""

    losses: Mapping[str, float]
    others: Mapping[str, float]

    @property
    def loss(self) -> float:
        """The greatest of the losses."""
        return max(self.losses.values())


@dataclass(frozen=True, slots=True)
class Speed:
    """Inputs (or tokens) a second of both on one thread, and the median of the rounds' ratios."""

    original: float
    quantised: float
    ratio: float
    unit: str


def figures(manifest: Manifest, batches: Sequence[Tensors], original: Engine, quantised: Engine) -> Figures:
    """Run both on the batches. Raises EngineError."""
    runs = [(batch, original.run(batch), quantised.run(batch)) for batch in batches]
    losses: dict[str, float] = {}
    others: dict[str, float] = {}
    if manifest.classify is not None:
        name, activation = manifest.classify.output, manifest.classify.activation
        before, after = (
            np.concatenate([_probabilities(run[place][name], activation) for run in runs]) for place in (1, 2)
        )
        found = classes(before, after)
        losses |= {key: found[key] for key in ("expected accuracy lost", "probability error")}
        others["top-1 agreement"] = found["top-1 agreement"]
    if manifest.embed is not None:
        name, pooling = manifest.embed.output, manifest.text.pooling if manifest.text is not None else "none"
        before, after = (
            np.concatenate([_pooled(run[place][name], run[0], pooling) for run in runs]) for place in (1, 2)
        )
        cosines = cosine(before, after)
        losses["1 - mean cosine"] = float(1.0 - cosines.mean())
        others["least cosine"] = float(cosines.min())
    others["greatest influence of neighbours"] = _influence(batches[len(batches) // 2], quantised)
    return Figures(losses, others)


def _influence(batch: Tensors, engine: Engine) -> float:
    """How much an input's outputs depend on what shares its batch: greatest 1 - cosine of alone and together.

    Scales that are computed at run time are common to a batch; a network with fixed ones has none but rounding.
    """
    together = engine.run(batch)
    worst = 0.0
    for row in range(len(next(iter(batch.values())))):
        alone = engine.run({name: array[row : row + 1] for name, array in batch.items()})
        for name, array in alone.items():
            pair = (array.reshape(1, -1).astype(np.float64), together[name][row].reshape(1, -1).astype(np.float64))
            worst = max(worst, float(1.0 - cosine(*pair)[0]))
    return worst


def classes(before: Array, after: Array) -> dict[str, float]:
    """Compare probabilities [inputs, classes].

    "expected accuracy lost": by how much the original believes less in the class that the other chose than in its own;
    where the original knows what it knows, that is the accuracy lost, and a tie that falls the other way costs nothing.
    "probability error": mean absolute difference for the original's first class.
    """
    rows = np.arange(len(before))
    first, chosen = before.argmax(1), after.argmax(1)
    return {
        "top-1 agreement": float((first == chosen).mean()),
        "expected accuracy lost": float((before[rows, first] - before[rows, chosen]).mean()),
        "probability error": float(np.abs(before[rows, first] - after[rows, first]).mean()),
    }


def cosine(before: Array, after: Array) -> Array:
    """The cosine of each row of one with that of the other [inputs]; 0 where one is all zeros."""
    product = (before * after).sum(1)
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    found: Array = np.divide(product, lengths, out=np.zeros_like(product), where=lengths > 0)
    return found


def ratio(batches: Sequence[Tensors], original: Engine, quantised: Engine, unit: str) -> Speed:
    """Time both on the same batches, in turns. Raises EngineError."""
    amount = sum(
        next(iter(batch.values())).size if unit == "tokens" else len(next(iter(batch.values()))) for batch in batches
    )
    pairs = [(_rate(batches, amount, original), _rate(batches, amount, quantised)) for _ in range(_ROUNDS)]
    before, after = (statistics.median(pair[place] for pair in pairs) for place in (0, 1))
    return Speed(before, after, statistics.median(pair[1] / pair[0] for pair in pairs), unit)


def _rate(batches: Sequence[Tensors], amount: int, engine: Engine) -> float:
    begun, count = time.perf_counter(), 0
    while True:
        for batch in batches:
            engine.run(batch)
        count += 1
        took = time.perf_counter() - begun
        if took >= _LEAST_SECONDS:
            return amount * count / took


def _probabilities(scores: Array, activation: str) -> Array:
    values = scores.reshape(len(scores), -1).astype(np.float64)
    if activation == "softmax":
        values = np.exp(values - values.max(1, keepdims=True))
        values /= values.sum(1, keepdims=True)
    elif activation == "sigmoid":
        values = 1.0 / (1.0 + np.exp(-values))
    return values


def _pooled(output: Array, batch: Tensors, pooling: str) -> Array:
    """One vector a row [inputs, values]."""
    if output.ndim == 2 or pooling == "none":
        return output.reshape(len(output), -1).astype(np.float64)
    if pooling == "cls":
        return output[:, 0].astype(np.float64)
    weights = batch[MASK][:, :, None] if MASK in batch else np.ones((*output.shape[:2], 1))
    found: Array = (output * weights).sum(1) / weights.sum(1)
    return found

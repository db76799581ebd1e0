"""A small multilayer perceptron that scores pairs, trained in float64 by Adam on a sampled softmax."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from engines.recommender.dataset import Floats
from engines.recommender.factors import rounded

HIDDEN: Final = (32, 16)
EPOCHS: Final = 12
#: Lists of one step: few where there are few, so that an epoch always has dozens of steps.
_BATCH: Final = (16, 256)
_STEPS: Final = 48
_RATE: Final = 2e-3
_WARM_UP: Final = 50
_DECAY: Final = 1e-3
_BETAS: Final = (0.9, 0.999)
#: Standardised features are kept within this many standard deviations.
CLIP: Final = 6.0
_DEVIATION_FLOOR: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Network:
    """`mean` and `deviation` [features] standardise; `layers` are weights [in, out] and biases [out], with ReLU
    between them; `middle` is the logit that becomes the score 0.5. All float64 that float32 can hold.
    """

    mean: Floats
    deviation: Floats
    layers: tuple[tuple[Floats, Floats], ...]
    middle: float = 0.0

    def logits(self, features: Floats) -> Floats:
        """[...] for features [..., features]."""
        found = np.clip((features - self.mean) / self.deviation, -CLIP, CLIP)
        for weight, bias in self.layers[:-1]:
            found = np.maximum(found @ weight + bias, 0.0)
        weight, bias = self.layers[-1]
        return np.asarray((found @ weight + bias)[..., 0])


@dataclass(frozen=True, slots=True)
class Lists:
    """What there is to learn from: `features` [lists, candidates, features], of which the first candidate was chosen;
    `log_weights` [lists, candidates]: the logarithm of how many items each candidate stands for.
    """

    features: Floats
    log_weights: Floats

    def __len__(self) -> int:
        return len(self.features)


def train(lists: Lists, told: Callable[[int, int, float], None], seed: int = 0) -> Network:
    """Minimise the sampled softmax cross-entropy; `told(epoch, epochs, loss)` after each epoch."""
    flat = lists.features.reshape(-1, lists.features.shape[-1])
    mean, deviation = rounded(flat.mean(axis=0)), rounded(_deviation(flat))
    inputs = np.clip((lists.features - mean) / deviation, -CLIP, CLIP)
    random = np.random.default_rng(seed)
    batch = min(max(len(lists) // _STEPS, _BATCH[0]), _BATCH[1])
    learner = _Learner(flat.shape[1], random, EPOCHS * -(-len(lists) // batch))
    for epoch in range(EPOCHS):
        order, loss = random.permutation(len(lists)), 0.0
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            loss += learner.step(inputs[chosen], lists.log_weights[chosen])
        told(epoch + 1, EPOCHS, loss / len(lists))
    network = Network(mean, deviation, tuple((rounded(weight), rounded(bias)) for weight, bias in learner.layers()))
    middle = float(np.float32(np.median(network.logits(lists.features[:, 0]))))
    return Network(mean, deviation, network.layers, middle)


def _deviation(flat: Floats) -> Floats:
    """The deviation of each column of [n, features]; huge for one that never varied, which then says nothing."""
    found = flat.std(axis=0)
    return np.asarray(np.where(found > _DEVIATION_FLOOR, found + _DEVIATION_FLOOR, 1 / _DEVIATION_FLOOR))


class _Learner:
    """Weights with their moments."""

    def __init__(self, inputs: int, random: np.random.Generator, steps: int) -> None:
        sizes = (inputs, *HIDDEN, 1)
        self._weights = [random.normal(0, np.sqrt(2 / a), (a, b)) for a, b in pairwise(sizes)]
        self._biases = [np.zeros(size) for size in sizes[1:]]
        self._first = [np.zeros_like(value) for value in (*self._weights, *self._biases)]
        self._second = [np.zeros_like(value) for value in (*self._weights, *self._biases)]
        self._steps, self._done = steps, 0

    def layers(self) -> list[tuple[Floats, Floats]]:
        return list(zip(self._weights, self._biases, strict=True))

    def step(self, inputs: Floats, log_weights: Floats) -> float:
        """One step on [lists, candidates, features]; returns the sum of the losses before it."""
        values = [inputs.reshape(-1, inputs.shape[-1])]
        for weight, bias in self.layers()[:-1]:
            values.append(np.maximum(values[-1] @ weight + bias, 0.0))
        logits = (values[-1] @ self._weights[-1] + self._biases[-1]).reshape(log_weights.shape)
        loss, gradient = _softmax_loss(logits + log_weights)
        self._descend(self._gradients(values, gradient.reshape(-1, 1)))
        return loss

    def _gradients(self, values: list[Floats], above: Floats) -> list[Floats]:
        of_weights: list[Floats] = []
        of_biases: list[Floats] = []
        for index in range(len(self._weights) - 1, -1, -1):
            of_weights.append(values[index].T @ above + _DECAY * self._weights[index])
            of_biases.append(above.sum(axis=0))
            if index:
                above = (above @ self._weights[index].T) * (values[index] > 0)
        return [*reversed(of_weights), *reversed(of_biases)]

    def _descend(self, gradients: list[Floats]) -> None:
        """Adam (Kingma and Ba, 2015) with a warm-up and a cosine schedule."""
        self._done += 1
        rate = _RATE * min(1.0, self._done / _WARM_UP) * 0.5 * (1 + np.cos(np.pi * self._done / self._steps))
        for index, (value, gradient) in enumerate(zip((*self._weights, *self._biases), gradients, strict=True)):
            first, second = self._first[index], self._second[index]
            first += (1 - _BETAS[0]) * (gradient - first)
            second += (1 - _BETAS[1]) * (gradient**2 - second)
            corrected = first / (1 - _BETAS[0] ** self._done)
            step = rate * corrected / (np.sqrt(second / (1 - _BETAS[1] ** self._done)) + 1e-8)
            np.subtract(value, step, out=value)


def _softmax_loss(logits: Floats) -> tuple[float, npt.NDArray[np.float64]]:
    """The summed loss of choosing the first of each row, and the gradient of its mean."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = shifted / shifted.sum(axis=1, keepdims=True)
    gradient = shares.copy()
    gradient[:, 0] -= 1.0
    return float(-np.log(shares[:, 0] + 1e-12).sum()), gradient / len(logits)

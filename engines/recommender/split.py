"""Leave-last-out: the last choice of each user is what a model must foresee from the ones before."""

from dataclasses import dataclass

import numpy as np

from engines.recommender.dataset import MIN_CHOICES, Choices, Ints


@dataclass(frozen=True, slots=True)
class Split:
    """`train`: all choices but those held out. `users` [n] had theirs held out, which were the items `targets` [n]."""

    train: Choices
    users: Ints
    targets: Ints


def leave_last_out(choices: Choices) -> Split:
    """Hold out the last choice of each user who has at least MIN_CHOICES."""
    users = np.flatnonzero(choices.counts >= MIN_CHOICES)
    last = choices.starts[users + 1] - 1
    mask = np.ones(len(choices), bool)
    mask[last] = False
    return Split(choices.kept(mask), users, choices.items[last])

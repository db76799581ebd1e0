"""Which texts of a call share a run, so that short ones never pay for long ones. Pure.

A run costs its tokens, padding included, and something by itself. Splitting the sorted lengths where that is cheapest
is the dynamic programme of Fang et al., "TurboTransformers: An Efficient GPU Serving System For Transformer Models"
(PPoPP 2021), section 5.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: What a run costs by itself, in tokens: all-MiniLM-L6-v2 on a CPU takes 4.2 ms for one row of 16 tokens, 1.8 ms for
#: each of many.
RUN_TOKENS: Final = 20


@dataclass(frozen=True, slots=True)
class Budget:
    """Of one run: at most `max_rows` texts and `max_tokens` tokens with padding (one longer text runs alone).

    A run with room for texts of other callers has its length rounded up to a multiple of `pad_to`, but not above
    `longest`, so that they meet. `fixed`: the length that every row of the network has; 0 = any.
    """

    max_rows: int
    max_tokens: int
    pad_to: int
    longest: int
    fixed: int = 0

    def padded(self, length: int, rows: int) -> int:
        """The length that a run of `rows` texts, the longest of `length` tokens, is padded to."""
        if self.fixed:
            return self.fixed
        if 2 * rows > self.rows(length):
            return length
        rounded = min(-(-length // self.pad_to) * self.pad_to, max(self.longest, length))
        return rounded if rows * rounded <= self.max_tokens or rows == 1 else length

    def rows(self, length: int) -> int:
        """Texts of this length in one run."""
        return max(1, min(self.max_rows, self.max_tokens // (self.fixed or length)))


@dataclass(frozen=True, slots=True)
class Group:
    """Texts, by their place in the call, that share a run; each is padded to `length` tokens."""

    places: tuple[int, ...]
    length: int


def groups(lengths: Sequence[int], budget: Budget) -> list[Group]:
    """Every text in one group, shortest first; `lengths` in tokens, each at least 1."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    sizes: list[int] = []
    counts: list[int] = []
    for place in order:
        size = budget.fixed or lengths[place]
        if sizes and sizes[-1] == size:
            counts[-1] += 1
        else:
            sizes.append(size)
            counts.append(1)
    made: list[Group] = []
    start = 0
    for first, end in _cheapest_cuts(sizes, counts, budget):
        count = sum(counts[first:end])
        made += _even_runs(order[start : start + count], lengths, budget)
        start += count
    return made


def _cheapest_cuts(sizes: Sequence[int], counts: Sequence[int], budget: Budget) -> list[tuple[int, int]]:
    """Half-open ranges of `sizes` (rising, each with the number of its texts) that are cheapest to run together."""
    best = [0.0]
    cut_before = [0]
    for end in range(1, len(sizes) + 1):
        longest, rows = sizes[end - 1], 0
        cheapest, place = float("inf"), end - 1
        for first in range(end - 1, -1, -1):
            if longest - sizes[first] > RUN_TOKENS:
                break  # A run of its own costs even one such text less than the padding would.
            rows += counts[first]
            runs = -(-rows // budget.rows(longest))
            cost = best[first] + runs * RUN_TOKENS + rows * longest
            if cost < cheapest:
                cheapest, place = cost, first
        best.append(cheapest)
        cut_before.append(place)
    cuts = []
    end = len(sizes)
    while end > 0:
        cuts.append((cut_before[end], end))
        end = cut_before[end]
    return cuts[::-1]


def _even_runs(places: Sequence[int], lengths: Sequence[int], budget: Budget) -> list[Group]:
    """Places in rising order of length, in as few runs as the budget allows, none much smaller than the others."""
    rows = budget.rows(lengths[places[-1]])
    runs = -(-len(places) // rows)
    bounds = [len(places) * run // runs for run in range(runs + 1)]
    return [
        Group(tuple(places[start:end]), budget.padded(lengths[places[end - 1]], end - start))
        for start, end in itertools.pairwise(bounds)
    ]

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.nlp.lengths import RUN_TOKENS, Budget, groups

BUDGET = Budget(max_rows=64, max_tokens=512, pad_to=4, longest=256)
budgets = st.builds(
    Budget,
    max_rows=st.integers(1, 80),
    max_tokens=st.integers(1, 2000),
    pad_to=st.integers(1, 32),
    longest=st.integers(2, 512),
    fixed=st.sampled_from([0, 0, 512]),
)


def cost(made, lengths):
    """What the groups cost in tokens, but for the rounding that brings callers together."""
    return sum(RUN_TOKENS + len(group.places) * max(lengths[place] for place in group.places) for group in made)


@given(st.lists(st.integers(1, 512), max_size=120), budgets)
def test_every_text_is_in_one_group_that_holds_it(lengths, budget):
    made = groups(lengths, budget)
    assert sorted(place for group in made for place in group.places) == list(range(len(lengths)))
    for group in made:
        longest = max(lengths[place] for place in group.places)
        assert group.length == budget.fixed or longest <= group.length < longest + budget.pad_to
        assert len(group.places) <= budget.max_rows
        assert len(group.places) == 1 or len(group.places) * group.length <= budget.max_tokens


@given(st.lists(st.integers(1, 256), min_size=1, max_size=120))
def test_no_text_pays_for_a_much_longer_one(lengths):
    for group in groups(lengths, BUDGET):
        for place in group.places:
            assert group.length - lengths[place] <= RUN_TOKENS + BUDGET.pad_to


@given(st.lists(st.integers(1, 256), min_size=1, max_size=60))
def test_groups_cost_no_more_than_the_simple_ways(lengths):
    """Neither one run a length nor one run for all that fit is cheaper."""
    by_length = 0
    for size in set(lengths):
        by_length += -(-lengths.count(size) // BUDGET.rows(size)) * RUN_TOKENS + lengths.count(size) * size
    assert cost(groups(lengths, BUDGET), lengths) <= by_length
    longest = max(lengths)
    if longest - min(lengths) <= RUN_TOKENS:
        runs = -(-len(lengths) // BUDGET.rows(longest))
        assert cost(groups(lengths, BUDGET), lengths) <= runs * RUN_TOKENS + len(lengths) * longest


@given(st.lists(st.integers(1, 256), min_size=1, max_size=60), st.randoms())
def test_the_order_of_the_texts_does_not_matter(lengths, random):
    shuffled = lengths[:]
    random.shuffle(shuffled)
    shapes = [sorted((len(g.places), g.length) for g in groups(order, BUDGET)) for order in (lengths, shuffled)]
    assert shapes[0] == shapes[1]


def test_few_short_texts_share_a_run_and_a_long_one_runs_alone():
    made = groups([5, 200, 9, 7], BUDGET)
    assert [(group.places, group.length) for group in made] == [((0, 3, 2), 12), ((1,), 200)]


def test_small_runs_are_rounded_up_but_never_beyond_the_model():
    budget = Budget(max_rows=8, max_tokens=512, pad_to=16, longest=250)
    assert [budget.padded(length, 1) for length in (1, 16, 17, 120, 250)] == [16, 16, 32, 128, 250]
    assert [budget.padded(17, rows) for rows in (4, 5)] == [32, 17]


def test_a_network_of_one_length_gets_it():
    budget = Budget(max_rows=8, max_tokens=512, pad_to=4, longest=128, fixed=128)
    made = groups([3, 90, 5, 128, 7], budget)
    assert {group.length for group in made} == {128}
    assert [len(group.places) for group in made] == [2, 3]


@pytest.mark.parametrize("count", [1, 42, 43, 100, 1000])
def test_runs_of_one_length_are_even(count):
    sizes = [len(group.places) for group in groups([12] * count, BUDGET)]
    assert sum(sizes) == count
    assert max(sizes) <= 42
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-count // 42)


def test_a_mix_of_lengths_wastes_little():
    """The lengths of ordinary text: many short, few long."""
    draw = random.Random(0)
    lengths = [min(256, 3 + int(draw.lognormvariate(3.2, 0.8))) for _ in range(600)]
    computed = sum(len(group.places) * group.length for group in groups(lengths, BUDGET))
    assert 1 - sum(lengths) / computed < 0.04
    assert len(groups(lengths, BUDGET)) < 70

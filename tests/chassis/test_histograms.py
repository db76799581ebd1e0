import random

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as Reference

from services.chassis import metrics  # noqa: F401  # It switches the series of creation times off.
from services.chassis.histograms import Histogram

BOUNDS = (0.0, 0.005, 1, 2.5)
NAME, WORDS, LABELS = "h_seconds", "What it is.", ("model", "version")


def test_the_page_reads_as_with_the_library_own_histogram():
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    mine = Histogram(NAME, WORDS, LABELS, BOUNDS, ours)
    reference = Reference(NAME, WORDS, LABELS, buckets=BOUNDS, registry=theirs)
    assert generate_latest(ours) == generate_latest(theirs)
    numbers = random.Random(1)
    for model in ("a", 'quoted "b"'):
        for value in (*BOUNDS, 1e9, *(numbers.uniform(0, 4) for _ in range(50))):
            mine.series(model, "1").observe(value)
            reference.labels(model, "1").observe(value)
    assert generate_latest(ours) == generate_latest(theirs)


def test_two_histograms_of_one_name_are_refused():
    registry = CollectorRegistry()
    Histogram(NAME, WORDS, LABELS, BOUNDS, registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Histogram(NAME, WORDS, LABELS, BOUNDS, registry)

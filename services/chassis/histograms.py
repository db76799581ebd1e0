"""Histograms for the request path: an observation is an addition, Prometheus' form of them is made when it is read.

prometheus_client's own locks twice and searches from the first bucket, five times a request. Here everything is
observed on the event loop; the page's thread reads whole numbers, which may at worst lack the observation in progress.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString


class Series:
    """The observations under one set of label values."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count `value` in the first bucket whose bound it does not exceed, the last one having none."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Histogram(Collector):
    """A metric `name` of one series for each set of label values; `bounds` of its buckets in rising order."""

    def __init__(
        self, name: str, words: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._words, self._labels = name, words, labels
        self._bounds = tuple(bounds)
        self._limits = [*map(floatToGoString, bounds), "+Inf"]
        self._series: dict[tuple[str, ...], Series] = {}
        registry.register(self)

    def series(self, *values: str) -> Series:
        """The series of these label values."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = Series(self._bounds)
        return found

    def collect(self) -> Iterator[Metric]:
        """What Prometheus reads: buckets that hold those below them too."""
        family = HistogramMetricFamily(self._name, self._words, labels=self._labels)
        for values, series in list(self._series.items()):
            below = accumulate(series.counts.copy())
            family.add_metric(values, list(zip(self._limits, below, strict=True)), series.total)
        yield family

    def describe(self) -> Iterator[Metric]:
        """The metric without its series, so that the registry knows its names."""
        yield HistogramMetricFamily(self._name, self._words, labels=self._labels)

"""Time series that add up in this process, and go to the SDK when it collects.

One value costs 0.3 µs here and 7 µs in the SDK. A histogram's buckets are exactly those given to the SDK as advice.
Where the SDK cannot take counts, or the value belongs to a kept trace (its exemplar), it goes to the instrument at
once. Callers hold a lock.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from opentelemetry import trace
from opentelemetry.context import Context

from fhirpath_otel.telemetry import folding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.metrics import Counter, Histogram, Meter

    from fhirpath_otel import semconv

NO_SPAN = trace.set_span_in_context(trace.INVALID_SPAN, Context())
"""Not just an empty context: the SDK takes that for none, and points the exemplar at the current span."""

Attributes = dict[str, str]


class _Series(Protocol):
    def clear(self) -> None: ...


SeriesT = TypeVar("SeriesT", bound=_Series)


class _Bounded(Generic[SeriesT]):
    """The series of one instrument, at most `limit` and those for what overflows."""

    def __init__(self, limit: int, make: Callable[[Attributes], SeriesT]) -> None:
        self._limit = limit
        self._make = make
        self._series: dict[tuple[tuple[str, str], ...], SeriesT] = {}

    def series(self, attributes: Attributes, overflow: Attributes | None = None) -> SeriesT:
        """The series with these attributes; beyond the limit the one with those of `overflow`, if they are given."""
        key = tuple(attributes.items())
        known = self._series.get(key)
        if known is None:
            if overflow is not None and len(self._series) >= self._limit:
                return self.series(overflow)
            known = self._series[key] = self._make(attributes)
        return known

    def has_room(self, attributes: Attributes, limit: int) -> bool:
        """Whether these attributes have a series, or may have one while there are fewer than `limit`."""
        return len(self._series) < limit or tuple(attributes.items()) in self._series

    def clear(self) -> None:
        """Forgets what all series have noted."""
        for series in self._series.values():
            series.clear()


class HistogramSeries:
    """The values of one attribute set since the last fold, in whole units (nanoseconds, items)."""

    __slots__ = ("attributes", "counts", "high", "histogram", "low", "total")

    def __init__(self, histogram: FoldedHistogram, attributes: Attributes) -> None:
        self.histogram = histogram
        self.attributes = attributes
        self.clear()

    def clear(self) -> None:
        """Forgets the values."""
        self.counts = [0] * (len(self.histogram.bounds) + 1)
        self.total = 0
        self.low: float = math.inf
        self.high: float = -math.inf

    def note(self, value: int, context: Context | None) -> None:
        """Adds a value; `context` holds the span of a kept trace."""
        histogram = self.histogram
        if context is not None or not histogram.folds:
            histogram.instrument.record(value / histogram.scale, self.attributes, context or NO_SPAN)
            return
        self.counts[bisect_left(histogram.bounds, value)] += 1
        self.total += value
        # `min` and `max` would take three times as long.
        if value < self.low:  # noqa: PLR1730
            self.low = value
        if value > self.high:  # noqa: PLR1730
            self.high = value

    def note_all(self, values: Sequence[int], times: int = 1) -> None:
        """Adds ascending values of evaluations whose trace was not kept, each so many times."""
        if not values:
            return
        histogram = self.histogram
        if not histogram.folds:
            for value in values:
                for _ in range(times):
                    histogram.instrument.record(value / histogram.scale, self.attributes, NO_SPAN)
            return
        bounds, counts, low, high = histogram.bounds, self.counts, values[0], values[-1]
        last, begun = bisect_left(bounds, high), 0
        for bucket in range(bisect_left(bounds, low), last):
            end = bisect_right(values, bounds[bucket], begun)
            counts[bucket] += (end - begun) * times
            begun = end
        counts[last] += (len(values) - begun) * times
        self.total += sum(values) * times
        self.low, self.high = min(self.low, low), max(self.high, high)


class CounterSeries:
    """The sum of one attribute set since the last fold."""

    __slots__ = ("attributes", "counter", "total")

    def __init__(self, counter: FoldedCounter, attributes: Attributes) -> None:
        self.counter = counter
        self.attributes = attributes
        self.clear()

    def clear(self) -> None:
        """Forgets the sum."""
        self.total = 0

    def add(self, context: Context | None, count: int = 1) -> None:
        """Counts; `context` holds the span of a kept trace."""
        if context is not None or not self.counter.folds:
            self.counter.instrument.add(count, self.attributes, context or NO_SPAN)
        else:
            self.total += count


class FoldedHistogram(_Bounded[HistogramSeries]):
    """A histogram. Its values are whole units, `scale` of which are one of the metric's.

    `folds` says whether the SDK takes counts; `look` finds out, at first and at each fold.
    """

    def __init__(self, meter: Meter, metric: semconv.Metric, scale: int, limit: int) -> None:
        super().__init__(limit, lambda attributes: HistogramSeries(self, attributes))
        self.instrument: Histogram = meter.create_histogram(
            metric.name,
            metric.unit,
            metric.meaning,
            explicit_bucket_boundaries_advisory=metric.boundaries,
        )
        self.scale = scale
        self.bounds = tuple(round(boundary * scale) for boundary in metric.boundaries)
        self.folds = False
        self._boundaries = metric.boundaries
        self._failed = False

    def look(self) -> folding.Places:
        """Where the counts go now; a reader may have been added."""
        instrument = folding.sdk_instrument(self.instrument)
        places = folding.fold_places(instrument, self._boundaries)
        self.folds = places.complete and not self._failed
        return places

    def fold(self) -> int:
        """Hands over what has been noted; returns how many values were lost.

        That happens once at most: an SDK that fails at it gets single values from then on. A reader that was added
        since the last fold, and needs single values, gets none of these.
        """
        places = self.look()
        lost = 0
        for series in list(self._series.values()):
            if series.high < series.low:
                continue
            counts, total = series.counts, series.total / self.scale
            low, high = series.low / self.scale, series.high / self.scale
            series.clear()
            try:
                for match in places.matches:
                    folding.fold(match, series.attributes, counts, total, low=low, high=high)
            except Exception:  # noqa: BLE001 -- its insides are private, and may change in any way
                self._failed, self.folds = True, False
                lost += sum(counts)
        return lost


class FoldedCounter(_Bounded[CounterSeries]):
    """A counter. Every SDK can take its sums; `folds` says whether they wait for the next fold."""

    def __init__(self, meter: Meter, metric: semconv.Metric, limit: int) -> None:
        super().__init__(limit, lambda attributes: CounterSeries(self, attributes))
        self.instrument: Counter = meter.create_counter(metric.name, metric.unit, metric.meaning)
        self.folds = False

    def fold(self) -> None:
        """Hands over what has been counted."""
        for series in list(self._series.values()):
            total = series.total
            if total:
                series.clear()
                self.instrument.add(total, series.attributes, NO_SPAN)

"""The host of a soak: an SDK whose exporters fail in turns, and what it says of spans and metrics."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from benchmarks.hosts import points
from fhirpath_otel import semconv

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

SLOW_SECONDS = 0.005
QUEUE = 2**16
"""More spans than are made between two flushes: what the SDK drops from a full queue it does not count everywhere."""

Lost = Callable[[str, str, int], None]


class RefusedError(ConnectionError):
    """What an exporter without a collector raises."""


class Turns:
    """Whether an export succeeds: it does, it says it failed, it raises, it is slow, each for some of the time."""

    def __init__(self) -> None:
        self._kinds = itertools.cycle(("takes", "fails", "takes", "raises", "slow"))
        self.next()

    def next(self) -> None:
        """The next one's turn."""
        self._kind = next(self._kinds)

    def takes(self) -> bool:
        """Whether this export succeeds; raises where the exporter does."""
        if self._kind == "raises":
            raise RefusedError
        if self._kind == "slow":
            time.sleep(SLOW_SECONDS)
        return self._kind != "fails"


class Spans(SpanExporter):
    """Takes spans in its turns, and counts what it took and what it lost."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.lost: Lost = lambda *_: None
        self.exported = self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Counts."""
        taken = False
        try:
            taken = self._turns.takes()
        finally:
            if taken:
                self.exported += len(spans)
            else:
                self.failed += len(spans)
                self.lost(semconv.WHAT_SPAN, semconv.INTERNAL_ERROR, len(spans))
        return SpanExportResult.SUCCESS if taken else SpanExportResult.FAILURE


class Metrics(MetricExporter):
    """Takes metrics in its turns, and keeps the last, whether taken or not: sums go on."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self._turns = turns
        self.last: Any = None

    def export(self, metrics_data: Any, timeout_millis: float = 0, **_: Any) -> MetricExportResult:
        """Keeps them."""
        self.last = metrics_data
        return MetricExportResult.SUCCESS if self._turns.takes() else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 0) -> bool:
        """Nothing waits."""
        return True

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        """Nothing to end."""


class HandedOver(SpanProcessor):
    """Counts spans that the SDK hands over, and the roots of ours among them, with what they stand for."""

    def __init__(self) -> None:
        self.spans = self.roots = 0
        self.stands_for = 0.0

    def on_end(self, span: ReadableSpan) -> None:
        """Counts."""
        self.spans += 1
        count = (span.attributes or {}).get(semconv.ADJUSTED_COUNT.name)
        if isinstance(count, float):
            self.roots += 1
            self.stands_for += count


class Host:
    """An SDK; exporters fail in turns until `settle`."""

    def __init__(self) -> None:
        self._turns = Turns()
        self.exporter, self.handed_over = Spans(self._turns), HandedOver()
        self._batches = BatchSpanProcessor(self.exporter, QUEUE)
        self.traces = TracerProvider(shutdown_on_exit=False)
        self.traces.add_span_processor(self.handed_over)
        self.traces.add_span_processor(self._batches)
        self._exported = Metrics(self._turns)
        self._reader = PeriodicExportingMetricReader(self._exported, export_interval_millis=float("inf"))
        self.metrics = MeterProvider([self._reader], shutdown_on_exit=False)

    def collect(self) -> None:
        """What an SDK does once a minute."""
        self._batches.force_flush()
        self._reader.force_flush()

    def next_turn(self) -> None:
        """Lets the exporters behave otherwise."""
        self._turns.next()

    def counts(self, metric: semconv.Metric) -> dict[tuple[str, ...], int]:
        """The sums of a metric, or the counts of a histogram, as last collected, by the values of the attributes."""
        return {
            tuple(str(value) for value in point.attributes.values()): (
                point.count if hasattr(point, "count") else point.value
            )
            for point in points(self._exported.last, metric)
        }

    def shutdown(self) -> None:
        """Ends it."""
        self.traces.shutdown()
        self.metrics.shutdown()

"""The host of a soak: an SDK whose exporters fail in turns, and what it says of spans and metrics."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from benchmarks.hosts import points
from fhirpath_otel import semconv
from fhirpath_otel.hand_over import CountedMetricExporter, CountedSpanExporter, CountedSpanProcessor
from fhirpath_otel.telemetry.export_cost import ExportCost
from fhirpath_otel.telemetry.recorder import Recorder

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

SLOW_SECONDS = 0.005


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
    """Takes spans in its turns, and counts those that it took."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Counts."""
        if not self._turns.takes():
            return SpanExportResult.FAILURE
        self.taken += len(spans)
        return SpanExportResult.SUCCESS


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
    """An SDK as this package sets it up, but that its exporters fail in turns. What gets lost is told to `recorder`."""

    recorder: Recorder

    def __init__(self) -> None:
        self._turns, self.export_cost = Turns(), ExportCost()
        self.exporter, self.handed_over = Spans(self._turns), HandedOver()
        counted = CountedSpanExporter(self.exporter, self._lost, self.export_cost.add_spans)
        self._spans = CountedSpanProcessor(counted, self._lost)
        self.traces = TracerProvider(shutdown_on_exit=False)
        self.traces.add_span_processor(self.handed_over)
        self.traces.add_span_processor(self._spans)
        self._exported = Metrics(self._turns)
        self._reader = PeriodicExportingMetricReader(
            CountedMetricExporter(self._exported, self._lost, self.export_cost.add_metrics),  # type: ignore[arg-type]
            export_interval_millis=float("inf"),
        )
        self.metrics = MeterProvider([self._reader], shutdown_on_exit=False)

    def _lost(self, what: str, reason: str, count: int) -> None:
        self.recorder.lost(what, reason, count)

    def collect(self) -> None:
        """What an SDK does once a minute."""
        self._spans.force_flush()
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

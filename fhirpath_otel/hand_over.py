"""Hands spans and metrics over to exporters, and counts what does not arrive.

The SDK ignores what `export()` returns, logs what it raises with its message, and drops spans from a full queue in
silence. Here an exporter gets a wrapper that sees its results, and the batch processor a door that lets in no more
than its queue holds: both with public interfaces only, so that they fit every SDK we support.

In a forked child an exporter is made anew when it is first needed: a connection cannot be shared with the parent.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from threading import Lock, RLock
from time import thread_time_ns
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.forks import call_around_forks, call_in_forked_child

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan

Lost = Callable[[str, str, int], None]
Spent = Callable[[int, int], None]

QUEUE_SIZE = 2_048
"""Spans that wait for their export, where `OTEL_BSP_MAX_QUEUE_SIZE` does not say."""

FORK_WAITS_SECONDS = 0.5
"""So long a fork waits for an export that is under way."""

_logger = logging.getLogger("fhirpath_otel")


class _Counted:
    """An exporter as the SDK sees it; everything but `export` and `shutdown` is the exporter's own.

    `lost` is None for an exporter that counts by itself. `remake` makes another one in a forked child (None where
    that cannot be had); without it the exporter looks after forks itself.
    """

    what: str
    plural: str
    failure: Any

    def __init__(
        self, exporter: Any, lost: Lost | None, spent: Spent, remake: Callable[[], Any] | None = None
    ) -> None:
        self._exporter = exporter
        self._lost = lost
        self._spent = spent
        self._remake = remake
        self._said = False
        self._inherited: list[Any] = []
        self._exporting = Lock()
        self._forking = False
        call_around_forks(self._await_export, self._go_on, self._go_on_in_child)

    def export(self, batch: Any, *args: Any, **named: Any) -> Any:
        """Exports and counts. An exporter that raises has failed: no more than that reaches the SDK and its log."""
        started_ns, count, error = thread_time_ns(), self.size(batch), None
        try:
            if self._exporter is None and self._remake is not None:
                self._exporter = self._remake()
            with self._exporting:
                result = (
                    self.failure if self._exporter is None else self._exporter.export(batch, *args, **named)
                )
        except Exception as raised:  # noqa: BLE001 -- the message may quote what was to be exported
            result, error = self.failure, raised
        self._spent(count, thread_time_ns() - started_ns)
        if result is self.failure:
            self._failed(count, error)
        return result

    def shutdown(self, *args: Any, **named: Any) -> Any:
        """Shuts the exporter down, if this process has one."""
        return None if self._exporter is None else self._exporter.shutdown(*args, **named)

    def size(self, batch: Any) -> int:
        """The number of items in a batch."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exporter or self._inherited[-1], name)

    def _failed(self, count: int, error: Exception | None) -> None:
        if self._lost is None:
            return
        self._lost(self.what, semconv.EXPORT_FAILED, count)
        if not self._said:
            self._said = True
            _logger.warning(
                "%s could not be exported (%s); they are lost and counted in %s, evaluations are not affected,"
                " further failures are only counted",
                self.plural,
                "the exporter says so" if error is None else type(error).__name__,
                semconv.LOST.name,
            )

    def _await_export(self) -> None:
        """A child that was forked during a call of gRPC cannot use gRPC."""
        self._forking = self._exporting.acquire(timeout=FORK_WAITS_SECONDS)

    def _go_on(self) -> None:
        if self._forking:
            self._forking = False
            self._exporting.release()

    def _go_on_in_child(self) -> None:
        self._exporting, self._forking = Lock(), False
        if self._remake is not None and self._exporter is not None:
            # Referenced for ever: its finalizer might talk over the connection, or wait for a thread that is not here.
            self._inherited.append(self._exporter)
            self._exporter = None


class CountedSpanExporter(_Counted):
    """An exporter of spans. `on_taken` is told of spans that left the queue, `on_done` of those that are dealt with."""

    what = semconv.WHAT_SPAN
    plural = "spans"
    failure = SpanExportResult.FAILURE
    on_taken: Callable[[int], None]
    on_done: Callable[[int], None]

    def size(self, batch: Sequence[ReadableSpan]) -> int:
        """The spans."""
        return len(batch)

    def export(self, batch: Sequence[ReadableSpan], *args: Any, **named: Any) -> Any:
        """As above, and the processor learns of it."""
        self.on_taken(len(batch))
        result = super().export(batch, *args, **named)
        self.on_done(len(batch))
        return result


class CountedMetricExporter(_Counted):
    """An exporter of metrics. In a forked child ours are left out: there they have another provider (`for_child`)."""

    what = semconv.WHAT_METRIC
    plural = "metrics"
    failure = MetricExportResult.FAILURE
    _leaves_ours_out = False

    def size(self, batch: MetricsData) -> int:
        """The metrics, however many series each has."""
        return sum(
            len(scope.metrics) for resource in batch.resource_metrics for scope in resource.scope_metrics
        )

    def export(self, batch: MetricsData, *args: Any, **named: Any) -> Any:
        """As above."""
        if self._leaves_ours_out:
            batch = _without_ours(batch)
            if not batch.resource_metrics:
                return MetricExportResult.SUCCESS
        return super().export(batch, *args, **named)

    def for_child(self) -> CountedMetricExporter:
        """One for our metrics in a forked child; this one leaves them out: what the parent had added up is its own."""
        self._leaves_ours_out = True
        own = CountedMetricExporter(None, self._lost, self._spent, self._remake)
        own._inherited = self._inherited
        return own


class CountedSpanProcessor(SpanProcessor):
    """A batch processor behind a door that counts what it does not take, or not get rid of. Threads may share it."""

    _waiting: int  # in the queue, or about to be
    _open: int  # in the queue, or being exported
    _closed: bool

    def __init__(self, exporter: CountedSpanExporter, lost: Lost) -> None:
        self._lost_spans = lost
        self._room = _queue_size()
        self._queue_full_said = False
        self._begin_anew()
        self._exporter = exporter
        exporter.on_taken, exporter.on_done = self._take, self._done
        call_in_forked_child(self._begin_anew)
        self._batches = BatchSpanProcessor(exporter)  # type: ignore[arg-type]  # it does what an exporter does

    def on_end(self, span: ReadableSpan) -> None:
        """Queues the span if it is sampled and there is room."""
        context = span.get_span_context()
        if context is None or not context.trace_flags.sampled:
            return
        with self._lock:
            closed, full = self._closed, self._waiting >= self._room
            if not (closed or full):
                self._waiting += 1
                self._open += 1
        if closed:
            self._lost_spans(semconv.WHAT_SPAN, semconv.SHUT_DOWN, 1)
        elif full:
            self._lost_spans(semconv.WHAT_SPAN, semconv.QUEUE_FULL, 1)
            self._say_queue_full()
        else:
            self._batches.on_end(span)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Exports what is queued; that can take longer."""
        flushed = self._batches.force_flush(timeout_millis)
        # What a wrapped exporter has held back and released meanwhile.
        return self._exporter.force_flush(timeout_millis) is not False and flushed

    def shutdown(self) -> None:
        """Exports what is queued, and ends; that can take long, so `close` tells what was not exported by then."""
        self._batches.shutdown()  # type: ignore[no-untyped-call]

    def close(self) -> int:
        """Takes no more spans; counts those that were not exported as lost, and returns how many they are."""
        with self._lock:
            unfinished = self._open
            self._closed, self._open = True, 0
        if unfinished:
            self._lost_spans(semconv.WHAT_SPAN, semconv.SHUT_DOWN, unfinished)
        return unfinished

    def _say_queue_full(self) -> None:
        if not self._queue_full_said:
            self._queue_full_said = True
            _logger.warning(
                "spans come faster than they are exported, or their exporter hangs; those beyond %d"
                " (OTEL_BSP_MAX_QUEUE_SIZE) are lost and counted in %s, evaluations are not affected",
                self._room,
                semconv.LOST.name,
            )

    def _take(self, count: int) -> None:
        with self._lock:
            self._waiting -= count

    def _done(self, count: int) -> None:
        with self._lock:
            self._open -= min(count, self._open)

    def _begin_anew(self) -> None:
        """State of a process that has queued nothing: what waits in the parent is the parent's."""
        self._lock = RLock()  # A finalizer may end a span while its thread is in here.
        self._waiting, self._open, self._closed = 0, 0, False


def _without_ours(batch: MetricsData) -> MetricsData:
    resources = []
    for resource in batch.resource_metrics:
        scopes = [scope for scope in resource.scope_metrics if scope.scope.name != semconv.SCOPE]
        if scopes:
            resources.append(dataclasses.replace(resource, scope_metrics=scopes))
    return dataclasses.replace(batch, resource_metrics=resources)


def _queue_size() -> int:
    try:
        return int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_SIZE))
    except ValueError:
        return QUEUE_SIZE

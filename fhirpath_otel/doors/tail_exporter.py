"""The third door: an exporter around another one, which decides and analyses on the export thread.

It sees ended spans only, in the order of their ends: children wait for their root. And it sees what exporting returned,
which a batching processor ignores.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from fhirpath_otel import semconv
from fhirpath_otel.doors.foreign_spans import stripped
from fhirpath_otel.telemetry.driver_context import DRIVERS, MOST_SPANS, DriverSpans
from fhirpath_otel.telemetry.forks import call_in_forked_child

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from fhirpath_otel.doors.routing import Router
    from fhirpath_otel.telemetry.span_counts import SpanCounts


class TailSamplingExporter(SpanExporter):
    """Exports by `wrapped` what is worth keeping; without one everything is counted as not exported.

    With `strip_foreign` other instrumentations' spans lose what can carry data. Nothing of ours is raised.
    """

    counts_losses = True

    def __init__(
        self,
        wrapped: SpanExporter | None,
        router: Router,
        counts: SpanCounts,
        *,
        strip_foreign: bool = False,
        scopes: Sequence[str] = semconv.EVALUATOR_SCOPES,
        drivers: DriverSpans = DRIVERS,
    ) -> None:
        self._wrapped = wrapped
        self._router = router
        self._counts = counts
        self._strips = strip_foreign
        self._scopes = frozenset(scopes)
        self._drivers = drivers
        self._closed = False
        self._begin_anew()
        call_in_forked_child(self._begin_anew)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Exports what is decided by now; what is held is not a failure."""
        ready = self._released()
        for span in spans:
            ready += self._ended(span)
        return self._send(ready)

    def shutdown(self) -> None:
        """Decides and exports what is complete, counts what is not, and shuts the wrapped exporter down."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._drivers.leave(self)
        self._send([*self._released(), *self._router.close()])
        if self._wrapped is not None:
            self._wrapped.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Exports what was released meanwhile, and flushes the wrapped exporter."""
        done = self._send(self._released()) is SpanExportResult.SUCCESS
        # Some exporters return nothing.
        return (self._wrapped is None or self._wrapped.force_flush(timeout_millis) is not False) and done

    def release(self, spans: list[Any]) -> None:
        """Takes spans of drivers whose evaluation was kept: the export thread sends them."""
        room = max(0, MOST_SPANS - len(self._ready))
        self._ready.extend(spans[:room])
        if len(spans) > room:
            self.lose(semconv.EXPORT_FAILED, len(spans) - room)

    def lose(self, reason: str, count: int) -> None:
        """Counts spans of drivers that do not go out."""
        self._counts.lost(semconv.WHAT_DRIVER_SPAN, reason, count)

    def _ended(self, span: ReadableSpan) -> list[ReadableSpan]:
        """What can be exported now that this span has ended."""
        try:
            if self._closed:
                return [span]
            goes_out = self._drivers.may_go_out(self, span)
            if goes_out is not None:
                return [span] if goes_out else []
            if self._router.concerns(span):
                return self._router.ended(span)
            return [*self._router.passed(span), span]
        except Exception:  # noqa: BLE001 -- one span must not cost the others
            self._counts.failed(semconv.WHAT_SPAN)
            return []

    def _released(self) -> list[ReadableSpan]:
        ready: list[ReadableSpan] = []
        with contextlib.suppress(IndexError):  # Another thread may flush at the same time.
            while True:
                ready.append(self._ready.popleft())
        return ready

    def _send(self, spans: list[ReadableSpan]) -> SpanExportResult:
        if not spans:
            return SpanExportResult.SUCCESS
        try:
            if self._strips:
                spans = [span if self._is_own(span) else stripped(span) for span in spans]
            result = SpanExportResult.FAILURE if self._wrapped is None else self._wrapped.export(spans)
        except Exception:  # noqa: BLE001 -- what it says may quote what was to be exported
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self._counts.lost(semconv.WHAT_SPAN, semconv.EXPORT_FAILED, len(spans))
        return result

    def _is_own(self, span: ReadableSpan) -> bool:
        return span.instrumentation_scope is not None and span.instrumentation_scope.name in self._scopes

    def _begin_anew(self) -> None:
        """In a forked child: what was released in the parent is the parent's."""
        self._ready: deque[ReadableSpan] = deque()
        self._closing = threading.Lock()

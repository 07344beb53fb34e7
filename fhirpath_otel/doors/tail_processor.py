"""The second door: a span processor around the one that exports, which lets through what is worth keeping."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import SpanProcessor

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.driver_context import DRIVERS, DriverSpans
from fhirpath_otel.telemetry.forks import call_in_forked_child
from fhirpath_otel.telemetry.span_evaluations import kept_reason

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from fhirpath_otel.doors.routing import Router
    from fhirpath_otel.telemetry.span_counts import SpanCounts


class TailSamplingProcessor(SpanProcessor):
    """Forwards to `wrapped` starts at once, and ended spans when they are judged, or at once if nobody judges them.

    With `hold_driver_spans`, spans of database drivers wait for the evaluation that they work for. Nothing of ours is
    raised into the program whose spans these are.
    """

    def __init__(
        self,
        wrapped: SpanProcessor,
        router: Router,
        counts: SpanCounts,
        *,
        hold_driver_spans: bool = True,
        drivers: DriverSpans = DRIVERS,
    ) -> None:
        self._wrapped = wrapped
        self._router = router
        self._counts = counts
        self._drivers = drivers
        self._waits_to_join = hold_driver_spans
        self._closed = False
        self._renew_lock()
        call_in_forked_child(self._renew_lock)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Forwards it, and notes the span if it is one to judge."""
        self._wrapped.on_start(span, parent_context)
        self._guarded(lambda: self._started(span, parent_context))

    def _on_ending(self, span: Span) -> None:
        ending = getattr(self._wrapped, "_on_ending", None)
        if ending is not None:
            ending(span)

    def on_end(self, span: ReadableSpan) -> None:
        """Forwards the span itself if nobody judges it, else what was waiting for it."""
        try:
            spans = self._ended(span)
        except Exception:  # noqa: BLE001 -- the program must not suffer
            self._counts.failed(semconv.WHAT_SPAN)
            return
        for ready in spans:
            self._wrapped.on_end(ready)

    def shutdown(self) -> None:
        """Decides what is complete, counts what is not, and shuts the wrapped processor down."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._guarded(lambda: self._drivers.leave(self))
        self._guarded(lambda: self.release(self._router.close()))
        self._wrapped.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """What is decided was forwarded when it was; so this is the wrapped processor's business."""
        return self._wrapped.force_flush(timeout_millis)

    def release(self, spans: list[Any]) -> None:
        """Forwards spans that were held back."""
        for span in spans:
            self._guarded(lambda ready=span: self._wrapped.on_end(ready))  # type: ignore[misc]

    def lose(self, reason: str, count: int) -> None:
        """Counts spans of drivers that do not go out."""
        self._counts.lost(semconv.WHAT_DRIVER_SPAN, reason, count)

    def _started(self, span: Span, parent_context: Context | None) -> None:
        if self._waits_to_join and self._is_in_use_by(span):
            self._waits_to_join = False
            self._drivers.join(self)
        if not self._closed and self._router.concerns(span) and not self._drivers.concerns(span):
            forced = str(baggage.get_baggage(semconv.DEBUG_BAGGAGE, parent_context)).lower() == "true"
            self.release(self._router.started(span, forced=forced))

    def _is_in_use_by(self, span: Span) -> bool:
        """Whether the span shows that the recorder's spans come through here."""
        if kept_reason(span.attributes) is not None and self._router.concerns(span):
            return True
        return getattr(trace.get_tracer_provider(), "resource", None) is span.resource

    def _ended(self, span: ReadableSpan) -> list[ReadableSpan]:
        if self._closed:
            return [span]
        goes_out = self._drivers.may_go_out(self, span)
        if goes_out is not None:
            return [span] if goes_out else []
        return self._router.ended(span) if self._router.concerns(span) else [span]

    def _renew_lock(self) -> None:
        self._closing = threading.Lock()

    def _guarded(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception:  # noqa: BLE001 -- the program must not suffer
            self._counts.failed(semconv.WHAT_SPAN)

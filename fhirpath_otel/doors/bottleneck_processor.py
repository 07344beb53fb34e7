"""Bottleneck rules over anybody's spans, without any sampling: a span processor that loses and delays nothing.

It wraps the processor that exports, because an ended span cannot be changed: what was found stands on a copy, which
only what is wrapped gets. Added to a provider beside others, without wrapping one, it gives the metric only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import RLock
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.sdk.trace import SpanProcessor

from fhirpath_otel import semconv
from fhirpath_otel.doors.routing import is_sampled
from fhirpath_otel.doors.span_copies import with_attributes
from fhirpath_otel.telemetry.forks import call_in_forked_child
from fhirpath_otel.telemetry.span_evaluations import Key, is_evaluation, kept_reason, key_of, local_parent
from fhirpath_otel.telemetry.spans import bottleneck_attributes

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from fhirpath_otel.telemetry.finding import Finding
    from fhirpath_otel.telemetry.span_counts import SpanCounts
    from fhirpath_otel.telemetry.span_evaluations import EndedSpan

MOST_TRACES = 500
MOST_SPANS = 500
"""Of a trace; what ends beyond that is forwarded all the same, and not analysed."""


class _Noted(NamedTuple):
    key: Key
    parent: Key | None
    span: ReadableSpan | None  # None where it tells rules nothing, and only holds others together.


class BottleneckProcessor(SpanProcessor):
    """Forwards every span at once; roots of evaluations, and local roots, with what the rules found below them.

    Remembers the ended spans of traces under way, within bounds, until a span above them ends.
    """

    def __init__(
        self,
        wrapped: SpanProcessor | None,
        analyse: Callable[[Sequence[EndedSpan]], tuple[Finding, ...]],
        counts: SpanCounts,
    ) -> None:
        self._wrapped = wrapped
        self._analyse = analyse
        self._counts = counts
        self._begin_anew()
        call_in_forked_child(self._begin_anew)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Forwards it."""
        if self._wrapped is not None:
            self._wrapped.on_start(span, parent_context)

    def _on_ending(self, span: Span) -> None:
        ending = getattr(self._wrapped, "_on_ending", None)
        if ending is not None:
            ending(span)

    def on_end(self, span: ReadableSpan) -> None:
        """Forwards the span itself, or a copy of it with findings."""
        try:
            if is_sampled(span):
                span = self._with_findings(span)
        except Exception:  # noqa: BLE001 -- the program must not suffer
            self._counts.failed(semconv.WHAT_FINDING)
        if self._wrapped is not None:
            self._wrapped.on_end(span)

    def shutdown(self) -> None:
        """Shuts the wrapped processor down."""
        if self._wrapped is not None:
            self._wrapped.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here: flushes the wrapped processor."""
        return self._wrapped is None or self._wrapped.force_flush(timeout_millis)

    def _with_findings(self, span: ReadableSpan) -> ReadableSpan:
        key, parent = key_of(span.context), local_parent(span.parent)
        judged = kept_reason(span.attributes) is not None
        if parent is not None and not judged and not is_evaluation(span.attributes):
            self._note(_Noted(key, parent, span if _tells_something(span) else None))
            return span
        with self._lock:
            below = self._take_below(key)
        if parent is not None:
            self._note(_Noted(key, parent, None))
        if judged:
            return span
        findings = self._analyse([*below, span])
        self._counts.found(findings)
        told = {attribute.name: value for attribute, value in bottleneck_attributes(findings).items()}
        return with_attributes(span, told) if told else span

    def _note(self, noted: _Noted) -> None:
        evicted = 0
        with self._lock:
            trace = self._traces.setdefault(noted.key[0], [])
            if len(trace) < MOST_SPANS:
                trace.append(noted)
            while len(self._traces) > MOST_TRACES:
                self._traces.popitem(last=False)
                evicted += 1
        if evicted:
            self._counts.lost(semconv.WHAT_FINDING, semconv.TOO_MANY_TRACES, evicted)

    def _take_below(self, key: Key) -> list[ReadableSpan]:
        """The noted spans below this one, which are noted no longer."""
        trace = self._traces.pop(key[0], [])
        inside, below, rest = {key}, [], []
        # Parents end after their children.
        for noted in reversed(trace):
            if noted.parent in inside:
                inside.add(noted.key)
                if noted.span is not None:
                    below.append(noted.span)
            else:
                rest.append(noted)
        if rest:
            self._traces[key[0]] = rest[::-1]
        return below[::-1]

    def _begin_anew(self) -> None:
        self._lock = RLock()  # A finalizer may end a span while its thread holds it.
        self._traces: OrderedDict[int, list[_Noted]] = OrderedDict()


def _tells_something(span: ReadableSpan) -> bool:
    return any(name.startswith(semconv.TELLING_PREFIXES) for name in span.attributes or ())

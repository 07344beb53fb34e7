"""What both doors do with a span: pass it on at once, hold it until it is judged, or wait for its evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fhirpath_otel import semconv
from fhirpath_otel.doors.span_copies import marked
from fhirpath_otel.sampling.group_sampler import GroupSampler, Mark
from fhirpath_otel.sampling.span_groups import SpanGroups
from fhirpath_otel.telemetry.span_evaluations import is_evaluation, kept_reason, key_of, local_parent

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from fhirpath_otel.sampling.group_state import Limits, Step
    from fhirpath_otel.telemetry.span_counts import SpanCounts
    from fhirpath_otel.telemetry.span_evaluations import EndedSpan

OWN = "own"
ALL = "all"

_SPAN_BYTES = 700
_ATTRIBUTE_BYTES = 120


class Router:
    """The spans that one door holds. Threads may share it.

    `whose` is `own` or `all`: whether it decides about spans of `scopes` only, or about all.
    """

    def __init__(
        self,
        sampler: GroupSampler,
        counts: SpanCounts,
        *,
        starts_seen: bool,
        whose: str = OWN,
        scopes: Sequence[str] = semconv.EVALUATOR_SCOPES,
        limits: Limits | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._counts = counts
        self._starts_seen = starts_seen
        self._all = whose == ALL
        self._scopes = frozenset(scopes)
        timed = {} if clock is None else {"clock": clock}
        self.groups: SpanGroups[EndedSpan] = SpanGroups(
            sampler, starts_seen=starts_seen, limits=limits, **timed
        )

    def concerns(self, span: ReadableSpan) -> bool:
        """Whether the span is one that is decided about here."""
        scope = span.instrumentation_scope
        return (self._all or (scope is not None and scope.name in self._scopes)) and is_sampled(span)

    def started(self, span: ReadableSpan, *, forced: bool) -> list[ReadableSpan]:
        """A span that concerns us has started; returns what can be handed over now."""
        key, parent = key_of(span.context), local_parent(span.parent)
        reason = kept_reason(span.attributes)
        if reason is not None:
            self.groups.kept_elsewhere(key, parent, reason)
            return []
        return self._done(self.groups.started(key, parent, forced=forced))

    def ended(self, span: ReadableSpan) -> list[ReadableSpan]:
        """A span that concerns us has ended; returns what can be handed over now."""
        self._counts.catch_up()
        key, parent = key_of(span.context), local_parent(span.parent)
        # Where starts are seen, a reason was seen then: an evaluation's root without one is judged with its group.
        reason = None if self._starts_seen else kept_reason(span.attributes)
        root = reason is not None or (
            not self._starts_seen and not self._all and is_evaluation(span.attributes)
        )
        return self._done(
            self.groups.ended(key, parent, span, size=estimated_bytes(span), root=root, kept=reason)
        )

    def passed(self, span: ReadableSpan) -> list[ReadableSpan]:
        """A span that does not concern us has ended; returns what waited for it."""
        return self._done(self.groups.passed(key_of(span.context)))

    def close(self) -> list[ReadableSpan]:
        """Decides what can be decided, and counts the rest."""
        return self._done(self.groups.close())

    def _done(self, step: Step[EndedSpan]) -> list[ReadableSpan]:
        if step.lost:
            self._counts.lost_all(semconv.WHAT_SPAN, step.lost)
        spans: list[ReadableSpan] = []
        for verdict, kept in step.forward:
            mark = verdict.mark if isinstance(verdict.mark, Mark) else None
            spans += marked(kept, mark)  # type: ignore[arg-type] # they came in as the SDK's
        return spans


def is_sampled(span: ReadableSpan) -> bool:
    """Whether a span is to be exported at all."""
    return span.context is not None and bool(span.context.trace_flags.sampled)


def estimated_bytes(span: ReadableSpan) -> int:
    """About the memory that an ended span takes."""
    size = _SPAN_BYTES + _attribute_bytes(span.attributes)
    for event in span.events:
        size += _ATTRIBUTE_BYTES + _attribute_bytes(event.attributes)
    return size + _SPAN_BYTES * len(span.links)


def _attribute_bytes(attributes: Mapping[str, Any] | None) -> int:
    return sum(
        _ATTRIBUTE_BYTES + (len(value) if isinstance(value, str | bytes) else 60 * len(value))
        if hasattr(value, "__len__")
        else _ATTRIBUTE_BYTES
        for value in (attributes or {}).values()
    )

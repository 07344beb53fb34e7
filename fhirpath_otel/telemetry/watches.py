"""Finds the watch of an evaluation: by what is evaluated, and by what its caller's context says.

What a context says is looked at once for each context: whether its span is sampled, whether its baggage asks for the
trace or names one of the allowed dimensions, and whether its `tracestate` decides about the baseline. Where the trace
is asked for, or the `tracestate` decides, evaluations are judged one by one.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry import baggage, trace

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.evaluation import Outcome
from fhirpath_otel.telemetry.forks import call_in_forked_child
from fhirpath_otel.telemetry.tracestate import incoming_threshold
from fhirpath_otel.telemetry.watch import Ordinary, Watch

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanContext

    from fhirpath_otel.telemetry.evaluation import Evaluation
    from fhirpath_otel.telemetry.metrics import Instruments

MAX_DIMENSION_VALUES = 50
"""Values of callers' dimensions, all together; what comes later is called `other`."""

MAX_DIMENSION_LENGTH = 64

_NOT_SELECTED = Outcome(False, semconv.DROPPED, semconv.NOT_SELECTED)
_UNSAMPLED_PARENT = Outcome(False, semconv.DROPPED, semconv.UNSAMPLED_PARENT)

_Key = tuple[object, ...]

Dimensions = tuple[tuple[str, str], ...]


class Kind:
    """Callers whose evaluations share watches. It is compared by identity, which costs less than its contents."""

    __slots__ = ("called", "dimensions", "sampled")

    def __init__(self, called: bool, sampled: bool, dimensions: Dimensions) -> None:
        self.called = called
        self.sampled = sampled
        self.dimensions = dimensions


class Caller(NamedTuple):
    """What a context says: its span, and its kind; None where evaluations have to be judged one by one."""

    span: SpanContext | None
    dimensions: Dimensions
    kind: Kind | None


class _Last(threading.local):
    """The context that this thread evaluated in last."""

    context: Callable[[], Context | None] = staticmethod(lambda: None)
    caller: Caller | None = None


class Callers:
    """Reads contexts. `dimensions` are the names of baggage entries that may become attributes."""

    def __init__(self, dimensions: tuple[str, ...] = ()) -> None:
        self._names = dimensions
        self._values: set[Dimensions] = set()
        self._kinds: dict[tuple[bool, bool, Dimensions], Kind] = {}
        self._last = _Last()

    def caller(self, context: Context) -> Caller:
        """What this context says."""
        last = self._last
        if last.context() is context and last.caller is not None:
            return last.caller
        caller = self._read(context)
        last.context, last.caller = weakref.ref(context), caller
        return caller

    def _read(self, context: Context) -> Caller:
        found = trace.get_current_span(context).get_span_context()
        span = found if found.is_valid else None
        sampled = span is None or bool(span.trace_flags.sampled)
        judged = baggage.get_baggage(semconv.DEBUG_BAGGAGE, context) is not None or (
            span is not None and incoming_threshold(span) is not None
        )
        dimensions = self._dimensions(context)
        if judged and sampled:
            return Caller(span, dimensions, None)
        facts = (span is not None, sampled, dimensions)
        return Caller(span, dimensions, self._kinds.setdefault(facts, Kind(*facts)))

    def _dimensions(self, context: Context) -> Dimensions:
        if not self._names:
            return ()
        entries = baggage.get_all(context)
        found = tuple(
            (name, value[:MAX_DIMENSION_LENGTH])
            for name in self._names
            if isinstance(value := entries.get(name), str)
        )
        if found in self._values or not found:
            return found
        if len(self._values) >= MAX_DIMENSION_VALUES:
            return tuple((name, semconv.OTHER) for name, _ in found)
        self._values.add(found)
        return found


class Watches:
    """The watches of a recorder, at most one for each expression, way of execution and kind of caller.

    Expressions that metrics do not tell apart share one. Threads may share this.
    """

    def __init__(
        self,
        ordinary: Ordinary,
        instruments: Instruments,
        may_find: Callable[[Evaluation, bool], bool],
        affords: Callable[[], bool],
    ) -> None:
        self._ordinary = ordinary
        self._instruments = instruments
        self._may_find = may_find
        self._affords = affords
        self._known: dict[_Key, Watch] = {}
        self._renew_lock()
        call_in_forked_child(self._renew_lock)

    def watch(self, evaluation: Evaluation, kind: Kind) -> Watch | None:
        """The watch for evaluations like this one under such callers; None where there is no room for one."""
        template = evaluation.template
        if template is None or template.text is None:
            return None
        with self._lock:
            expression = template.hash if self._instruments.tells_apart(template) else None
            key = _key(evaluation, expression, kind)
            known = self._known.get(key) or self._make(evaluation, kind, expression)
            if known is None and expression is not None:
                # No room for one of its own: then it shares that of expressions which are not told apart.
                key = _key(evaluation, None, kind)
                known = self._known.get(key) or self._make(evaluation, kind, None)
            if known is not None:
                self._known[key] = known
        return known

    def _make(self, evaluation: Evaluation, kind: Kind, expression: str | None) -> Watch | None:
        outcome = _NOT_SELECTED if kind.sampled else _UNSAMPLED_PARENT
        passes = self._ordinary.passes if kind.sampled else None
        watch = self._instruments.watch(evaluation, outcome, expression, passes, self._affords)
        if watch is not None:
            watch.has_operators = evaluation.execution_mode == semconv.IN_MEMORY
            watch.asks_rules = self._may_find(evaluation, kind.called)
            usual_ns = self._ordinary.usual(expression, ()) if kind.sampled else float("inf")
            watch.limit(usual_ns, usual_ns)
        return watch

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


def _key(evaluation: Evaluation, expression: str | None, kind: Kind) -> _Key:
    return (
        *(expression, evaluation.engine_name, evaluation.engine_version, evaluation.execution_mode),
        *(evaluation.resource_type, evaluation.cache_hit, evaluation.db_system, evaluation.statement_summary),
        *(evaluation.obstacle is None, kind),
    )

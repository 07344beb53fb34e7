"""Spans of database drivers below our SQL span, although that is made only when the evaluation was judged.

While a driver works, a context is current that tells it a trace id and a span id which our SQL span will get if the
trace is kept. The driver's spans are held back until that is known, and share its fate. For that somebody has to stand
where spans leave the process: a door (`fhirpath_otel.doors`) that has joined here. Without one the caller's context
stays, and a driver's spans are siblings of the evaluation: a parent that is never exported would be worse.

Everything below carries our mark in its `tracestate`, the entry `fhirpath`, with a token of this process: so spans that
a driver's span has below it are known too.
"""

from __future__ import annotations

import re
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import SystemRandom
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.forks import call_in_forked_child

if TYPE_CHECKING:
    from fhirpath_otel.telemetry.evaluation import Evaluation
    from fhirpath_otel.telemetry.own_tracer import FittingIds

MOST_EVALUATIONS = 10_000
"""Of so many evaluations is known what became of them, or that nothing is decided yet."""

MOST_SPANS = 2_000
"""So many spans are held back at once, of all evaluations together."""

_KEY = "fhirpath"
_MAX_ENTRIES = 32
_SPAN_ID = re.compile(r"[0-9a-f]{16}")


class Door(Protocol):
    """Where spans leave the process."""

    def release(self, spans: list[Any]) -> None:
        """Lets spans out that were held back."""

    def lose(self, reason: str, count: int) -> None:
        """Counts spans that were held back and do not go out."""


@dataclass(slots=True)
class _Fate:
    """What became of an evaluation: `kept` is None until it is known. `held` are the spans that wait for that."""

    kept: bool | None = None
    reason: str = semconv.EVALUATION_DROPPED
    held: list[tuple[Door, Any]] = field(default_factory=list)


class DriverSpans:
    """The evaluations whose driver was told a parent, and the spans that wait for them. Threads may share it."""

    def __init__(self, most_evaluations: int = MOST_EVALUATIONS, most_spans: int = MOST_SPANS) -> None:
        self._most = (most_evaluations, most_spans)
        self._doors: weakref.WeakSet[Door] = weakref.WeakSet()
        self.active = False
        """Whether anybody could hold spans back: the one thing that costs an evaluation something elsewhere."""
        self._usable = True
        self._begin_anew()
        call_in_forked_child(self._begin_anew)

    def join(self, door: Door) -> None:
        """A door stands where the spans of the recorder's provider leave."""
        with self._lock:
            self._doors.add(door)
            self.active = self._usable

    def leave(self, door: Door) -> None:
        """A door closes; what it still holds back is lost."""
        with self._lock:
            self._doors.discard(door)
            self.active = self._usable and bool(self._doors)
            count = 0
            for fate in self._fates.values():
                count += sum(holder is door for holder, _ in fate.held)
                fate.held = [(holder, span) for holder, span in fate.held if holder is not door]
            self._held -= count
        if count:
            door.lose(semconv.UNDECIDED, count)

    def give_up(self) -> None:
        """From now on no parent is told: spans also leave where no door stands."""
        with self._lock:
            self._usable = self.active = False

    def open(
        self, evaluation: Evaluation, ids: FittingIds | None, randomness: int | None = None
    ) -> SpanContext | None:
        """The parent for the driver's spans, noted in the evaluation; None where the caller's context has to stay.

        A new trace's id gets this `randomness`, if the evaluation was drawn already.
        """
        if not self._doors:
            self.active = False
            return None
        caller = trace.get_current_span(evaluation.context).get_span_context()
        if ids is None or (caller.is_valid and not caller.trace_flags.sampled):
            return None
        trace_id, span_id, randomness = ids.premade(randomness)
        flags, state = TraceFlags(TraceFlags.SAMPLED), TraceState()
        if caller.is_valid:
            trace_id, flags, state = caller.trace_id, caller.trace_flags, caller.trace_state
        else:
            evaluation.randomness = randomness
        marked = [(_KEY, f"{self._token}-{span_id:016x}"), *((k, v) for k, v in state.items() if k != _KEY)]
        if len(marked) <= _MAX_ENTRIES:
            state = TraceState(marked)
        evaluation.premade = SpanContext(trace_id, span_id, False, flags, state)
        with self._lock:
            self._fates[trace_id, span_id] = _Fate()
            dropped = self._forget_the_oldest()
        _count(dropped)
        return evaluation.premade

    def settle(self, evaluation: Evaluation) -> None:
        """The evaluation was judged: what was held back goes out if its SQL span did."""
        outcome, premade = evaluation.outcome, evaluation.premade
        if outcome is None or premade is None:
            return
        kept = outcome.kept and evaluation.sql_written
        with self._lock:
            fate = self._fates.get((premade.trace_id, premade.span_id))
            if fate is None or fate.kept is not None:
                return
            fate.kept = kept
            held, fate.held = fate.held, []
            self._held -= len(held)
        if kept:
            _release(held)
        else:
            _count([(semconv.EVALUATION_DROPPED, held)])

    def concerns(self, span: Any) -> bool:
        """Whether a span is below a parent that was told here."""
        return bool(self._fates) and self._key(span.context, span.parent) is not None

    def may_go_out(self, door: Door, span: Any) -> bool | None:
        """Whether a span may go out now; None if it is none of these.

        If not, the door is told later what is to be done, or was told already.
        """
        key = self._key(span.context, span.parent) if self._fates else None
        if key is None:
            return None
        with self._lock:
            fate = self._fates.get(key)
            if fate is None:
                lost: list[tuple[str, list[tuple[Door, Any]]]] = [(semconv.TOO_OLD, [(door, span)])]
            elif fate.kept is None:
                fate.held.append((door, span))
                self._held += 1
                lost = self._make_room(fate)
            elif fate.kept:
                return True
            else:
                lost = [(fate.reason, [(door, span)])]
        _count(lost)
        return False

    def _key(self, context: SpanContext, parent: SpanContext | None) -> tuple[int, int] | None:
        """The SQL span that this one is below of, if it is one of ours."""
        token, _, span_id = (context.trace_state.get(_KEY) or "").partition("-")
        if token == self._token and _SPAN_ID.fullmatch(span_id):
            return context.trace_id, int(span_id, 16)
        # Some samplers drop what they do not know of a tracestate.
        if parent is not None and (parent.trace_id, parent.span_id) in self._fates:
            return parent.trace_id, parent.span_id
        return None

    def _make_room(self, fate: _Fate) -> list[tuple[str, list[tuple[Door, Any]]]]:
        """An evaluation that holds back too much loses all of it: a part would have parents that do not exist."""
        if self._held <= self._most[1]:
            return []
        fate.kept, fate.reason = False, semconv.TOO_MANY_SPANS
        held, fate.held = fate.held, []
        self._held -= len(held)
        return [(semconv.TOO_MANY_SPANS, held)]

    def _forget_the_oldest(self) -> list[tuple[str, list[tuple[Door, Any]]]]:
        lost = []
        while len(self._fates) > self._most[0]:
            _, fate = self._fates.popitem(last=False)
            self._held -= len(fate.held)
            lost.append((semconv.TOO_MANY_TRACES, fate.held))
        return lost

    def _begin_anew(self) -> None:
        """In a forked child: what is under way is the parent's."""
        self._lock = RLock()  # A finalizer may end an evaluation while its thread holds it.
        self._token = f"{SystemRandom().getrandbits(32):08x}"
        self._fates: OrderedDict[tuple[int, int], _Fate] = OrderedDict()
        self._held = 0


def _release(held: Iterable[tuple[Door, Any]]) -> None:
    by_door: dict[Door, list[Any]] = {}
    for door, span in held:
        by_door.setdefault(door, []).append(span)
    for door, spans in by_door.items():
        door.release(spans)


def _count(lost: Iterable[tuple[str, list[tuple[Door, Any]]]]) -> None:
    for reason, held in lost:
        for door, _ in held:
            door.lose(reason, 1)


@contextmanager
def current_parent(parent: SpanContext) -> Iterator[None]:
    """Makes the parent current, over whatever else is in the context."""
    token = otel_context.attach(trace.set_span_in_context(NonRecordingSpan(parent)))
    try:
        yield
    finally:
        otel_context.detach(token)


DRIVERS = DriverSpans()
"""Those of this process."""

"""What a soak evaluates: many expressions by two engines, in requests of some kinds of callers, and what goes wrong.

The times of day are simulated. Durations are real, but for slow evaluations with notes: those pretend that they began
two seconds ago.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from time import perf_counter_ns
from typing import Any

from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.calls import watch_calls
from fhirpath_otel.telemetry.evaluation import Evaluation
from fhirpath_otel.telemetry.operators import OperatorTime
from fhirpath_otel.telemetry.recorder import Recorder
from fhirpath_otel.telemetry.redaction import Template, template_from
from fhirpath_otel.telemetry.watch import Known

EXPRESSIONS = 300
"""More than metrics tell apart."""

REQUEST = 64
"""Evaluations of one caller."""

FAILS, SLOW, COLD, UNPARSABLE = 499, 997, 101, 2_003
"""One in so many."""

SLOW_CALL_NS = 300_000
SLOW_NOTES_NS = 2_000_000_000
DIMENSION = "tenant"

Evaluate = Callable[[int], None]
Engine = Callable[[int], list[Any]]

_OPERATORS = tuple(OperatorTime(name, 0, 5, 1, 500, 1, 2) for name in ("given", "where", "exists"))


class Clock:
    """Seconds that pass when one says so. Threads may share it."""

    def __init__(self) -> None:
        self._now = 0.0
        self._lock = Lock()

    def __call__(self) -> float:
        """The time."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        with self._lock:
            self._now += seconds


class NoSuchFunctionError(Exception):
    """What a failing engine raises."""


@dataclass
class Load:
    """Evaluations under a recorder. Threads may share it."""

    recorder: Recorder
    clock: Clock
    seconds_per_evaluation: float
    _ways: list[Evaluate] = field(default_factory=list)

    def __post_init__(self) -> None:
        templates = [template_from(f"Patient.name[{number}].given") for number in range(EXPRESSIONS)]
        calls = [self._called(template) for template in templates]
        notes = [self._noted(template, number) for number, template in enumerate(templates)]
        self._ways = [
            way for call, note in zip(calls, notes, strict=True) for way in (call, note, call, note, call)
        ]

    def requests(self, first: int, count: int) -> None:
        """`count` evaluations, numbered from `first`, in requests of some."""
        ways = self._ways
        for begin in range(first, first + count, REQUEST):
            numbers = range(begin, min(begin + REQUEST, first + count))
            token = otel_context.attach(_caller(begin // REQUEST))
            try:
                for number in numbers:
                    ways[number % len(ways)](number)
            finally:
                otel_context.detach(token)
            self.clock.advance(len(numbers) * self.seconds_per_evaluation)

    def _called(self, template: Template) -> Evaluate:
        def describe(evaluation: Evaluation) -> None:
            evaluation.template, evaluation.engine_name = template, "fhirpathpy"
            evaluation.execution_mode, evaluation.compiled_before = semconv.IN_MEMORY, True

        def engine(number: int) -> list[Any]:
            if number % FAILS == 0:
                raise NoSuchFunctionError
            if number % SLOW == 0:
                until_ns = perf_counter_ns() + SLOW_CALL_NS
                while perf_counter_ns() < until_ns:
                    pass
            return [None] * (number % 3)

        function: Engine = engine

        def with_operators(evaluation: Evaluation) -> Engine:
            evaluation.operators = _OPERATORS
            return function

        watched = watch_calls(self.recorder, function, describe, with_operators=with_operators)

        def evaluate(number: int) -> None:
            with contextlib.suppress(NoSuchFunctionError):
                watched(number)

        return evaluate

    def _noted(self, template: Template, place: int) -> Evaluate:
        known = Known()
        recorder = self.recorder
        in_memory = place % 3 == 0

        def evaluate(number: int) -> None:
            cold, unparsable = number % COLD == 0, number % UNPARSABLE == 0
            evaluation = recorder.begin()
            if number % SLOW == 0:
                evaluation.start_ns -= SLOW_NOTES_NS
            evaluation.expression, evaluation.cache_hit = "Patient.name.given", not cold
            evaluation.compiled_before = not cold
            began_ns = perf_counter_ns()
            evaluation.stages.append((semconv.PARSE, evaluation.start_ns, began_ns))
            if unparsable:
                recorder.finish(evaluation, "syntax_error")
                return
            evaluation.template, evaluation.resource_type = template, "Patient"
            evaluation.db_system, evaluation.statement_summary = "duckdb", "SELECT Patient"
            evaluation.execution_mode = semconv.IN_MEMORY if in_memory else semconv.PUSHDOWN
            recorder.expect(evaluation, None if cold else known)
            evaluation.stages.append((semconv.SQL, began_ns, perf_counter_ns()))
            evaluation.result_count = number % 5
            recorder.finish(evaluation, "evaluation_error" if number % FAILS == 0 else None)

        return evaluate


_numbers = itertools.count(1)


def _caller(request: int) -> Context:
    """The context of a request: no caller, sampled and unsampled ones, with a threshold, baggage of some kinds."""
    kind = request % 8
    context = Context()
    if kind in {1, 2, 3}:
        state = TraceState([("ot", "th:8")] if kind == 3 else [])
        flags = TraceFlags(TraceFlags.DEFAULT if kind == 2 else TraceFlags.SAMPLED)
        identity = SpanContext(
            random.getrandbits(128) or 1,
            next(_numbers),
            is_remote=True,
            trace_flags=flags,
            trace_state=state,
        )
        context = trace.set_span_in_context(NonRecordingSpan(identity), context)
    if kind == 4:
        context = baggage.set_baggage(DIMENSION, f"tenant {request % 100}", context)
    if request % 499 == 0:
        context = baggage.set_baggage(semconv.DEBUG_BAGGAGE, "true", context)
    return context

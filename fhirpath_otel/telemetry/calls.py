"""Watches the calls of an engine that evaluates in one: what an ordinary call costs is a closure and a tuple.

An evaluation of 80 µs leaves 1.6 µs for all of telemetry, so an ordinary call makes no notes: its times are taken
around it, and it gets notes afterwards only where it failed, was slow, or has to be judged for another reason.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sized
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry import context as otel_context

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.evaluation import Evaluation

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from fhirpath_otel.telemetry.recorder import Recorder
    from fhirpath_otel.telemetry.watch import Watch
    from fhirpath_otel.telemetry.watches import Kind

BATCH = 128
"""Ordinary calls that are added up at once: they leave less to add than evaluations with notes."""

Function = TypeVar("Function", bound=Callable[..., Any])

Describe = Callable[[Evaluation], None]
"""Notes what is evaluated: engine, template, mode."""


def watch_calls(
    recorder: Recorder,
    function: Function,
    describe: Describe,
    *,
    with_operators: Callable[[Evaluation], Function] | None = None,
) -> Function:
    """`function`, each call of which is an evaluation in memory, with the sized result as its items.

    `with_operators` gives it with its operators noted in an evaluation, where its engine can do that. What it
    returns, raises and is named stays as it is.
    """
    calls = _Calls(recorder, function, describe, with_operators)
    active, add_up, get_current, clock = (
        recorder.active,
        recorder.add_up,
        otel_context.get_current,
        perf_counter_ns,
    )

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if not (recorder.recording or recorder.is_recording()):
            return function(*arguments, **named)
        context = get_current()
        seen = calls.last
        watch = seen[1] if seen[0]() is context else calls.find(context)
        if watch is None or not next(watch.passes, False):
            return calls.judged(arguments, named)
        weight = 1
        if watch.timed_one_in > 1:
            weight = 0 if next(watch.untimed, False) else watch.weight()
        active.append(None)
        started_ns = clock()
        try:
            result = function(*arguments, **named)
        except BaseException as error:
            calls.late(watch, started_ns, weight, type(error).__name__)
            raise
        if weight:
            duration_ns = clock() - started_ns
            if duration_ns > watch.limit_ns:
                calls.late(watch, started_ns, weight, None, result)
                return result
            waiting = watch.waiting
            waiting.append((duration_ns, (), None, None, len(result), weight))
            if len(waiting) >= BATCH:
                add_up(watch)
        if active:
            active.pop()
        return result

    return call  # type: ignore[return-value]


class _Calls:
    """The calls of one function. Threads may share it."""

    def __init__(
        self,
        recorder: Recorder,
        function: Callable[..., Any],
        describe: Describe,
        with_operators: Callable[[Evaluation], Callable[..., Any]] | None,
    ) -> None:
        self._recorder = recorder
        self._function = function
        self._describe = describe
        self._with_operators = with_operators
        self._known: dict[Kind, Watch] = {}
        self.last: tuple[Callable[[], Context | None], Watch | None] = (lambda: None, None)

    def find(self, context: Context) -> Watch | None:
        """The watch for calls in this context; None before the first of them was judged."""
        kind = self._recorder.caller(context).kind
        watch = None if kind is None else self._known.get(kind)
        if watch is not None:
            watch.only_stage, watch.has_operators = semconv.IN_MEMORY, self._with_operators is not None
            self.last = (weakref.ref(context), watch)
        return watch

    def judged(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """A call that is noted, and judged by itself."""
        recorder = self._recorder
        self.last = (lambda: None, None)  # In a forked child there are other watches.
        evaluation = recorder.begin()
        self._describe(evaluation)
        recorder.expect(evaluation, self._known)
        function = self._function
        if evaluation.detail == semconv.OPERATOR_DETAIL and self._with_operators is not None:
            function = self._with_operators(evaluation)
        # What preparing took is not the evaluation's: it would be slower than ordinary ones.
        started_ns = evaluation.start_ns = perf_counter_ns()
        try:
            result = function(*arguments, **named)
        except BaseException as error:
            _end(recorder, evaluation, started_ns, type(error).__name__)
            raise
        _end(recorder, evaluation, started_ns, None, result)
        return result

    def late(
        self, watch: Watch, started_ns: int, weight: int, error_type: str | None, result: Sized = ()
    ) -> None:
        """Judges a call that turned out not to be ordinary."""
        watch.judge_instead(weight)
        evaluation = Evaluation(otel_context.get_current())
        evaluation.start_ns = started_ns
        self._describe(evaluation)
        evaluation.watch, evaluation.drawn, evaluation.detail = watch, False, watch.detail
        _end(self._recorder, evaluation, started_ns, error_type, result)


def _end(
    recorder: Recorder, evaluation: Evaluation, started_ns: int, error_type: str | None, result: Sized = ()
) -> None:
    evaluation.stages.append((semconv.IN_MEMORY, started_ns, perf_counter_ns()))
    if error_type is None:
        evaluation.result_count = len(result)
    recorder.finish(evaluation, error_type)

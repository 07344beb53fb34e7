"""Watches the calls of an engine that evaluates in one: what an ordinary call costs is a closure and two numbers.

An evaluation of 80 µs leaves 1.6 µs for all of telemetry, so an ordinary call makes no notes: its times are taken
around it, and it gets notes afterwards only where it failed, was slow, or has to be judged for another reason.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry import context as otel_context

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.evaluation import Evaluation
from fhirpath_otel.telemetry.watch import CALLS_BATCH, Known, Turn

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from fhirpath_otel.telemetry.recorder import Recorder
    from fhirpath_otel.telemetry.watch import Watch

Function = TypeVar("Function", bound=Callable[..., Any])

_get_current = otel_context.get_current

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
    begun = recorder.under_way.begun

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if not (recorder.recording or recorder.is_recording()):
            return function(*arguments, **named)
        seen, watch, note = calls.last
        if seen() is not _get_current():
            seen, watch, note = calls.find(_get_current())
        if watch is None:
            return calls.judged(arguments, named)
        unpaid = False
        if not next(watch.passes, False):
            turn = calls.turn(watch)
            if turn is None or turn.drawn or turn.detailed:
                return calls.judged(arguments, named, turn)
            unpaid = turn.unpaid
        started_ns, weight = perf_counter_ns(), 1
        if watch.timed_one_in > 1:
            weight = 0 if next(watch.untimed, False) else watch.weight()
        if not weight:
            try:
                result = function(*arguments, **named)
            except BaseException as error:
                calls.late(watch, started_ns, weight, type(error).__name__, unpaid=unpaid)
                raise
            return result
        next(begun)
        try:
            result = function(*arguments, **named)
        except BaseException as error:
            calls.late(watch, started_ns, weight, type(error).__name__, begun=True, unpaid=unpaid)
            raise
        duration_ns = perf_counter_ns() - started_ns
        if duration_ns > watch.limit_ns:
            calls.late(watch, started_ns, weight, None, result, begun=True, unpaid=unpaid)
        elif weight == 1:
            try:
                note([duration_ns, len(result)])
            except Exception:  # noqa: BLE001 -- what a result does is not the caller's trouble
                note([duration_ns, 1])
        else:
            watch.weighed.fromlist([duration_ns, _size(result), weight])
        return result

    return call  # type: ignore[return-value]


Last = tuple[Callable[[], "Context | None"], "Watch | None", Callable[[list[int]], None]]
"""The context of the last call, the watch for calls in it, and what takes the duration and results of one."""


def _nowhere(_: object = None) -> None:
    return None


_NONE: Last = (_nowhere, None, _nowhere)


class _Calls:
    """The calls of one function. Threads may share it."""

    __slots__ = ("_describe", "_function", "_known", "_recorder", "_with_operators", "last")

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
        self._known = Known()
        self.last = _NONE

    def find(self, context: Context) -> Last:
        """The watch for calls in this context; None before the first of them was judged."""
        watch = self._known.of(self._recorder.caller_kind(context))
        if watch is not None:
            watch.only_stage, watch.has_operators = semconv.IN_MEMORY, self._with_operators is not None
            self.last = (weakref.ref(context), watch, watch.note_plain)
            return self.last
        return _NONE

    def turn(self, watch: Watch) -> Turn | None:
        """What falls on a call for which there was no pass left; None where it finds another watch."""
        if watch.retired:
            return None
        if watch.waiting() >= CALLS_BATCH:
            self._recorder.add_up(watch)
        return watch.turn()

    def judged(self, arguments: tuple[Any, ...], named: dict[str, Any], turn: Turn | None = None) -> Any:
        """A call that is noted, and judged by itself; with a turn that is known, or to be told now."""
        recorder = self._recorder
        self.last = _NONE  # In a forked child there are other watches.
        evaluation = recorder.begin()
        self._describe(evaluation)
        recorder.expect(evaluation, self._known, turn)
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
        self,
        watch: Watch,
        started_ns: int,
        weight: int,
        error_type: str | None,
        result: Any = (),
        *,
        begun: bool = False,
        unpaid: bool = False,
    ) -> None:
        """Judges a call that turned out not to be ordinary; `begun` says that it was counted as active."""
        watch.judge_instead(weight)
        evaluation = Evaluation(otel_context.get_current())
        evaluation.start_ns = started_ns
        if not begun:
            next(self._recorder.under_way.begun)
        self._describe(evaluation)
        evaluation.watch, evaluation.drawn, evaluation.detail = watch, False, watch.detail
        evaluation.unpaid = unpaid
        _end(self._recorder, evaluation, started_ns, error_type, result)


def _end(
    recorder: Recorder, evaluation: Evaluation, started_ns: int, error_type: str | None, result: Any = ()
) -> None:
    evaluation.stages.append((semconv.IN_MEMORY, started_ns, perf_counter_ns()))
    if error_type is None:
        evaluation.result_count = _size(result)
    recorder.finish(evaluation, error_type)


def _size(result: Any) -> int:
    """The items of a result; one where it has no size."""
    try:
        return len(result)
    except Exception:  # noqa: BLE001 -- as above
        return 1

"""Measures what recording costs, by running it: the same code on a recorder that hands nothing over.

Takes about 5 ms, once a process, when recording begins. What it finds holds for warm caches; the governor compares it
with what it sees on the spot.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.calls import watch_calls
from fhirpath_otel.telemetry.evaluation import Decision, Evaluation
from fhirpath_otel.telemetry.governor import Costs, Governor
from fhirpath_otel.telemetry.recorder import Recorder
from fhirpath_otel.telemetry.redaction import template_from
from fhirpath_otel.telemetry.watch import CALLS_BATCH, NEVER, Known

ROUNDS = 9
EVALUATIONS = 64

_TEMPLATE = template_from("calibration")
_DROP = Decision(False, semconv.NOT_SELECTED)
_NO_ITEMS: list[Any] = []
_known = Known()


class _Nowhere:
    """Providers, meters and instruments that take everything, and do nothing with it."""

    def __getattr__(self, _: str) -> Any:
        return self

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self

    @staticmethod
    def _is_enabled() -> bool:
        return False


class _AllOrdinary:
    slow_ns = float("inf")

    def suppressed(self, reason: str, count: int) -> None:
        pass

    def passes(self) -> int:
        return NEVER

    def randomness(self) -> int:
        return 0

    def usual(self, _: str | None, __: Sequence[int]) -> float:
        return float("inf")


class _Account(Governor):
    """Takes note of what adding up took; chooses nothing."""

    folded_ns = 0

    def learn(self, *found: Any) -> None:
        self.folded_ns += found[3]


def calibrate() -> Costs:
    """The costs of recording on this machine, now."""
    costs = Costs()
    nowhere: Any = _Nowhere()
    account = _Account(detail=semconv.STAGE_DETAIL, costs=costs)
    recorder = Recorder(
        lambda _: _DROP,
        ordinary=_AllOrdinary(),
        may_find=lambda *_: False,
        governor=account,
        watches_memory=False,
        tracer_provider=nowhere,
        meter_provider=nowhere,
    )
    call = watch_calls(recorder, _nothing, _describe)
    for _ in range(2):
        call()
        _evaluate(recorder)
    bare, empty = _measure(account, _bare), _measure(account, _nothing)
    costs.stages = max(100.0, _measure(account, lambda: _evaluate(recorder)) - bare)
    costs.warm_finish = costs.finish = max(100.0, _finishing(recorder))
    for watch in recorder.watches:
        watch.set_detail(semconv.BASIC, semconv.BASIC, NEVER, 1)
    costs.basic = max(100.0, _measure(account, lambda: _evaluate(recorder)) - bare)
    costs.call = max(50.0, _measure(account, call) - empty)
    costs.warm_fold = costs.fold_of_calls = max(50.0, _fold_of_calls(recorder, account))
    for watch in recorder.watches:
        watch.set_detail(semconv.BASIC, semconv.BASIC, NEVER, 10**6)
    costs.counted = max(20.0, _measure(account, call) - empty)
    return costs


def _fold_of_calls(recorder: Recorder, account: _Account) -> float:
    """Nanoseconds that adding up one call takes."""
    watch, found = recorder.watches[0], []
    for _ in range(ROUNDS):
        for duration_ns in range(80_000, 80_000 + 10 * CALLS_BATCH, 10):
            watch.plain.fromlist([duration_ns, 3])
        account.folded_ns = 0
        recorder.add_up(watch)
        found.append(account.folded_ns / CALLS_BATCH)
    return statistics.median(found)


def _finishing(recorder: Recorder) -> float:
    """Nanoseconds that finishing an ordinary evaluation takes."""
    found = []
    for _ in range(ROUNDS * 4):
        evaluation = _begun(recorder)
        began_ns = perf_counter_ns()
        recorder.finish(evaluation)
        found.append(perf_counter_ns() - began_ns)
    return statistics.median(found)


def _measure(account: _Account, function: Callable[[], object]) -> float:
    """Nanoseconds that one call takes, without the adding up."""
    found = []
    for _ in range(ROUNDS):
        account.folded_ns = 0
        began_ns = perf_counter_ns()
        for _ in range(EVALUATIONS):
            function()
        found.append((perf_counter_ns() - began_ns - account.folded_ns) / EVALUATIONS)
    return statistics.median(found)


def _nothing() -> list[Any]:
    return _NO_ITEMS


def _describe(evaluation: Evaluation) -> None:
    evaluation.template, evaluation.compiled_before = _TEMPLATE, True


def _bare() -> None:
    _note(Evaluation())


def _evaluate(recorder: Recorder) -> None:
    recorder.finish(_begun(recorder))


def _begun(recorder: Recorder) -> Evaluation:
    evaluation = recorder.begin()
    _describe(evaluation)
    evaluation.execution_mode = (
        semconv.PUSHDOWN
    )  # Calls have a watch of their own, as they have other stages.
    recorder.expect(evaluation, _known)
    _note(evaluation)
    return evaluation


def _note(evaluation: Evaluation) -> None:
    began_ns = perf_counter_ns()
    evaluation.result_count = evaluation.consumer_ns = evaluation.sql_active_ns = 0
    evaluation.stages.append((semconv.PARSE, evaluation.start_ns, began_ns))
    evaluation.stages.append((semconv.SQL, began_ns, perf_counter_ns()))

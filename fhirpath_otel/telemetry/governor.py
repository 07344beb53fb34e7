"""Keeps what telemetry costs within a share of what evaluations take.

For each expression it chooses the most detail that its usual duration pays for. What a piece of recording costs is
measured: by running it when recording begins (`calibration.py`), and again on the spot, where caches are cold. Traces
are paid from an account that evaluations fill.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.export_cost import ExportCost
from fhirpath_otel.telemetry.watch import BATCH, LONG_NS, NEVER, SPARE

if TYPE_CHECKING:
    from fhirpath_otel.telemetry.evaluation import Evaluation
    from fhirpath_otel.telemetry.watch import Watch

RECORDING_SHARE = 0.5
"""Of the budget: for what is recorded of every evaluation. A quarter is for what the account cannot see: collecting
metrics, and the caches that telemetry takes from others.
"""

DETAIL_SHARE = 0.1
"""Of the budget: for what is recorded of one in N."""

TRACES_SHARE = 0.15
"""Of the budget: for traces that are kept."""

FIRST_TRACES = 20
"""Traces that are paid for in advance: those of a process that just began."""

TRACE_EVERY_SECONDS = 2.0
"""So often a trace is paid for, however little is evaluated."""

STEADY_SECONDS = 10.0
"""A level stays for so long at a steady load; for a tenth of it where the load has changed to twice or half."""

WORTH = 2.0
"""Stages are given up where they take so many times what doing without them takes, …"""

WORTH_SHARE = 0.5
"""… and that saves this much of the share for recording."""

MARGIN = 0.8
"""More detail has to fit into this much of its share before it is chosen, so that the choice does not swing."""

EXPORT_NS = 28_000.0
"""CPU time of exporting one span over OTLP, as measured; taken where exporters do not measure theirs, or not yet."""

MEASURED_SPANS = 100
"""From so many exported spans on their measured time is taken."""

MAX_INTERVAL = 100_000
RATIO_SECONDS = 10.0

REMEMBERED = 100
"""Evaluations of the past that weigh as much in an expression's mean duration as so many new ones."""


@dataclass(slots=True)
class Costs:
    """What recording costs, in nanoseconds.

    An evaluation that is only `counted`, an ordinary `call` of another engine, an ordinary evaluation with notes in
    `basic` detail or with `stages`, one that is `judged` by itself, a `mark` of an operator's call, a `trace` with its
    export. Of an ordinary one, the `fold` when some are added up (`fold_of_calls`), and the `finish` where it runs.
    """

    counted: float = 250.0
    call: float = 700.0
    basic: float = 2_500.0
    stages: float = 3_000.0
    judged: float = 12_000.0
    mark: float = 1_000.0
    trace: float = 400_000.0
    fold: float = 1_000.0
    fold_of_calls: float = 250.0
    warm_fold: float = 250.0
    finish: float = 1_000.0
    warm_finish: float = 1_000.0

    @property
    def cold(self) -> float:
        """How many times longer recording takes where caches are cold than when it is run over and over."""
        return min(max(self.finish / self.warm_finish, 1.0), 20.0)

    @property
    def cold_call(self) -> float:
        """The same of calls, which have no finish: as much as adding up takes longer."""
        return min(max(self.fold_of_calls / self.warm_fold, 1.0), 4.0)


class Governor:
    """Chooses details, and keeps the account. Threads may share it: its sums may lose an addition, never an error.

    `detail` pins one for all; `auto` leaves the choice here. `clock` gives seconds, from any start. `export_cost` is
    what exporters measure, where they are ours.
    """

    def __init__(
        self,
        budget: float = 0.02,
        detail: str = semconv.AUTO,
        clock: Callable[[], float] = time.monotonic,
        costs: Costs | None = None,
        export_cost: ExportCost | None = None,
    ) -> None:
        self.budget = budget
        self.detail = detail
        self.costs = costs or Costs()
        self._export_cost = export_cost or ExportCost()
        self._calibrated = costs is not None
        self._clock = clock
        self._prepaid = FIRST_TRACES
        self._credit_ns = 0.0
        self._credited_at = clock()
        self._evaluated_ns = 0.0
        self._spent_ns = 0.0
        self._window = (clock(), 0.0, 0.0)
        self._ratio: float | None = None

    def calibrate(self) -> None:
        """Measures the costs, once."""
        if not self._calibrated:
            self._calibrated = True
            from fhirpath_otel.telemetry.calibration import calibrate

            with contextlib.suppress(Exception):  # Then the figures stay that were measured elsewhere.
                self.costs = calibrate()

    @property
    def exporting_ns(self) -> float:
        """CPU time of exporting one span."""
        exported = self._export_cost
        return exported.spent_ns / exported.spans if exported.spans >= MEASURED_SPANS else EXPORT_NS

    def first_detail(self) -> str:
        """That of an evaluation whose expression is not known yet."""
        return semconv.STAGE_DETAIL if self.detail in {semconv.AUTO, semconv.OFF} else self.detail

    def learn(self, watch: Watch, durations: list[int], evaluations: int, spent_ns: float) -> None:
        """Takes note of ordinary evaluations of an expression that were added up, and chooses its detail anew."""
        mean_ns, timed = sum(durations) / len(durations), len(durations)
        # Small ones, as a collection adds up, take more each and say less.
        share = 0.1 * min(1.0, timed / BATCH)
        if watch.only_stage is None:
            self.costs.fold += (spent_ns / timed - self.costs.fold) * share
        else:
            self.costs.fold_of_calls += (spent_ns / timed - self.costs.fold_of_calls) * share
        _note_mean(watch, mean_ns, timed)
        self._evaluated(mean_ns * evaluations)
        self._spend(timed * self._recording(watch) + (evaluations - timed) * self._counting())
        self.choose(watch)

    def judged(self, evaluation: Evaluation, watch: Watch | None, spent_ns: float) -> None:
        """Takes note of an evaluation that was judged by itself, and what that took."""
        costs, outcome, operators = self.costs, evaluation.outcome, evaluation.operators
        marks_ns = self._marked(evaluation, watch) if operators else 0.0
        spent_ns += marks_ns
        self._evaluated(evaluation.duration_ns)
        if outcome is not None and outcome.kept:
            spent_ns += self.exporting_ns * (1 + len(evaluation.stages) + len(operators))
            costs.trace += (spent_ns - costs.trace) * 0.1
            self._pay(outcome.reason, spent_ns)
        else:
            costs.judged += (spent_ns - costs.judged) * 0.05
        self._spend(spent_ns)
        if watch is not None and watch.mean_ns and evaluation.error_type is None:
            _note_mean(watch, max(evaluation.duration_ns - marks_ns, 1.0), 1)
            self.choose(watch)

    def _pay(self, reason: str, spent_ns: float) -> None:
        if self._prepaid and reason not in {semconv.ERROR, semconv.FORCED}:
            self._prepaid -= 1
        else:
            # Some are kept without being paid; the debt that they make is paid back in bounded time.
            self._credit_ns = max(self._credit_ns - spent_ns, -FIRST_TRACES * self.costs.trace)

    def _marked(self, evaluation: Evaluation, watch: Watch | None) -> float:
        """Nanoseconds that the marks of its operators took, by how much longer it was than others."""
        calls, costs = sum(operator.calls for operator in evaluation.operators), self.costs
        if watch is not None and watch.mean_ns and calls:
            watch.marks += (calls - watch.marks) * 0.3
            if evaluation.in_turn:
                mark_ns = (evaluation.duration_ns - watch.mean_ns) / calls
                costs.mark += (min(max(mark_ns, 100.0), 5_000.0) - costs.mark) * 0.05
        return calls * costs.mark

    def finished(self, spent_ns: int) -> None:
        """Takes note of what finishing an ordinary evaluation took; the median, as it may be interrupted."""
        self.costs.finish *= 1.1 if spent_ns > self.costs.finish else 1 / 1.1

    def affords_trace(self) -> bool:
        """Whether the account pays for one more trace."""
        now = self._clock()
        trickle_ns = max(0.0, now - self._credited_at) / TRACE_EVERY_SECONDS * self.costs.trace
        self._credited_at = now
        self._credit_ns = min(self._credit_ns + trickle_ns, FIRST_TRACES * self.costs.trace)
        return self._prepaid > 0 or self._credit_ns >= self.costs.trace

    def ratio(self) -> float | None:
        """What was spent to what was evaluated in the last seconds; None where nothing was evaluated yet."""
        now = self._clock()
        since, evaluated_ns, spent_ns = self._window
        evaluated = self._evaluated_ns - evaluated_ns
        spent = self._spent_ns + self._export_cost.metrics_spent_ns
        if evaluated > 0:
            self._ratio = (spent - spent_ns) / evaluated
        if not 0 <= now - since < RATIO_SECONDS:
            self._window = (now, self._evaluated_ns, spent)
        return self._ratio

    def choose(self, watch: Watch) -> None:
        """Chooses the detail for an expression whose mean duration is known."""
        self._choose(watch)
        watch.brief = 0 < watch.mean_ns < LONG_NS and not watch.retired
        watch.spare = 0 if watch.interval == NEVER and watch.settled else SPARE

    def _choose(self, watch: Watch) -> None:
        if self.detail != semconv.AUTO:
            self._pin(watch)
            return
        detail, timed_one_in = self._base(watch)
        now = self._clock()
        changes = detail != watch.detail or (timed_one_in > 1) != (watch.timed_one_in > 1)
        if changes:
            ratio = watch.mean_ns / watch.changed_mean_ns if watch.changed_mean_ns else 1.0
            steady = STEADY_SECONDS if 0.5 < ratio < 2.0 else STEADY_SECONDS / 10
            if 0 <= now - watch.changed_at < steady:
                return
            watch.changed_at, watch.changed_mean_ns = now, watch.mean_ns
        turn_detail, interval = self._turns(watch, detail)
        if (
            changes
            or turn_detail != watch.turn_detail
            or _differs(interval, watch.interval)
            or _differs(timed_one_in, watch.timed_one_in)
        ):
            watch.set_detail(detail, turn_detail, interval, timed_one_in)

    def _pin(self, watch: Watch) -> None:
        if self.detail == semconv.OFF:  # What is under way stays as it is.
            return
        interval = 1 if self.detail == semconv.OPERATOR_DETAIL else NEVER
        if (watch.detail, watch.interval, watch.timed_one_in) != (self.detail, interval, 1):
            watch.set_detail(self.detail, self.detail, interval, 1)

    def _base(self, watch: Watch) -> tuple[str, int]:
        """The detail of every evaluation, and of how many one is timed."""
        share_ns = self.budget * RECORDING_SHARE * watch.mean_ns
        has = {
            semconv.STAGE_DETAIL: watch.detail == semconv.STAGE_DETAIL,
            semconv.BASIC: watch.timed_one_in == 1,
        }
        fits = {detail: share_ns * (1.0 if now else MARGIN) for detail, now in has.items()}
        stages_ns, basic_ns = (self._recording(watch, detail) for detail in fits)
        # Less is chosen only where that saves something.
        saves = stages_ns >= WORTH * basic_ns and stages_ns - basic_ns >= WORTH_SHARE * share_ns
        if stages_ns <= fits[semconv.STAGE_DETAIL] or not (watch.only_stage or saves):
            return semconv.STAGE_DETAIL, 1
        if basic_ns <= fits[semconv.BASIC] or not watch.only_stage:
            return semconv.BASIC, 1
        left_ns = max(share_ns - self._counting(), share_ns / 10, 1.0)
        return semconv.BASIC, min(math.ceil(basic_ns / left_ns), MAX_INTERVAL)

    def _turns(self, watch: Watch, detail: str) -> tuple[str, int]:
        """The detail of some evaluations, and in how many each time one gets it."""
        turn_detail = semconv.OPERATOR_DETAIL if watch.has_operators else semconv.STAGE_DETAIL
        if turn_detail == detail or (watch.only_stage and not watch.has_operators):
            return turn_detail, NEVER
        share_ns = self.budget * DETAIL_SHARE * max(watch.mean_ns, 1.0)
        turn_ns = self.costs.judged
        if turn_detail == semconv.OPERATOR_DETAIL:
            turn_ns += watch.marks * self.costs.mark
        return turn_detail, min(math.ceil(turn_ns / share_ns), MAX_INTERVAL)

    def _recording(self, watch: Watch, detail: str | None = None) -> float:
        """Nanoseconds that recording an ordinary evaluation takes."""
        costs = self.costs
        if watch.only_stage:
            return costs.call * costs.cold_call + costs.fold_of_calls
        detailed = (detail or watch.detail) == semconv.STAGE_DETAIL
        return (costs.stages if detailed else costs.basic) * costs.cold + costs.fold

    def _counting(self) -> float:
        return self.costs.counted * self.costs.cold_call

    def _evaluated(self, duration_ns: float) -> None:
        self._evaluated_ns += duration_ns
        self._credit_ns += duration_ns * self.budget * TRACES_SHARE

    def _spend(self, spent_ns: float) -> None:
        self._spent_ns += spent_ns


def _note_mean(watch: Watch, duration_ns: float, times: int) -> None:
    watch.mean_ns += (duration_ns - watch.mean_ns) * (times / (times + REMEMBERED) if watch.mean_ns else 1.0)


def _differs(interval: int, known: int) -> bool:
    """By more than noise."""
    return not 0.75 < interval / known < 1.33

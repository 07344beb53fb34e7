"""The metrics, fed by every evaluation before any sampling.

A kept evaluation is recorded in the context of its span: an exemplar then always points at a trace that exists. All
others only wait, ordinary ones at their expression's watch and the rest in one queue, until some can be added up at
once; the SDK gets sums when it collects. Ten calls of instruments cost 65 µs an evaluation, this 1 to 3 µs. Nothing is
kept by thread: adding to what waits is atomic, so there would be no less to add up, and dead threads to look after.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable
from threading import RLock
from time import thread_time_ns
from typing import TYPE_CHECKING

from opentelemetry.metrics import Observation

from fhirpath_otel import semconv
from fhirpath_otel.telemetry import folding
from fhirpath_otel.telemetry.forks import call_around_forks
from fhirpath_otel.telemetry.routes import Routes
from fhirpath_otel.telemetry.series import NO_SPAN
from fhirpath_otel.telemetry.under_way import UnderWay
from fhirpath_otel.telemetry.watch import CALLS_MOST, MOST, Watch, drained

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Meter

    from fhirpath_otel.telemetry.evaluation import Evaluation, Outcome
    from fhirpath_otel.telemetry.finding import Finding
    from fhirpath_otel.telemetry.redaction import Disclosure, Template

BATCH = 16
"""Evaluations of the queue that are added up at once: more would be a hiccup that a caller notices, fewer cost more
locking.
"""

MAX_QUEUE = 2_048
"""Evaluations that may wait while another thread adds up; beyond that a caller waits for it."""

MAX_WATCHES = 1_000
"""Watches of one process. Each takes 1 kB, and 3 to 15 kB where it is full of what waits."""

SHARED_WATCHES = 200
"""Of these so many for expressions that share one."""

Learn = Callable[["Watch", list[int], int, int], None]
"""Told of a watch, the ascending durations that were added up, how many evaluations they stand for, and the nanoseconds
that took.
"""


class Instruments:
    """The instruments of one meter. Threads may share it; a fork waits until nobody adds up.

    `learn` is told of the ordinary evaluations that were added up, `suppressed` of those among them whose trace would
    have been kept for a reason, had it been paid. `ratio` says what telemetry costs, `catch_up` ends what is to be
    ended before metrics are collected.
    `under_way` counts evaluations, if they begin elsewhere.
    """

    def __init__(
        self,
        meter: Meter,
        disclosure: Disclosure,
        max_expressions: int,
        learn: Learn = lambda *_: None,
        ratio: Callable[[], float | None] = lambda: None,
        *,
        suppressed: Callable[[str, int], None] | None = None,
        catch_up: Callable[[], None] = lambda: None,
        under_way: UnderWay | None = None,
    ) -> None:
        self._routes = Routes(meter, disclosure, max_expressions)
        self._histograms, self._counters = self._routes.histograms, self._routes.counters
        self._learn = learn
        self._ratio = ratio
        self._suppressed = suppressed or _nobody_asks
        self._catch_up = catch_up
        self._under_way = under_way or UnderWay()
        self._queue: deque[Evaluation] = deque()
        self._watches: list[Watch] = []
        self._measured = False
        self._forking = self._adding = False
        self._lock = RLock()  # A finalizer may end an evaluation while its thread adds up.
        self._recorded = dict.fromkeys(semconv.DETAIL.values, 0)
        findings, lost = semconv.FINDINGS, semconv.LOST
        self._findings = meter.create_counter(findings.name, findings.unit, findings.meaning)
        self._lost = meter.create_counter(lost.name, lost.unit, lost.meaning)
        self._observe(meter)
        self._survive_forks()

    def ended(self, evaluation: Evaluation) -> None:
        """Counts an evaluation as active no more."""
        self._under_way.end(evaluation)

    def lost(self, what: str, reason: str, count: int = 1) -> None:
        """Counts telemetry that was lost."""
        self._lost.add(count, {semconv.LOST_WHAT.name: what, semconv.LOST_REASON.name: reason}, NO_SPAN)

    def record(self, evaluation: Evaluation, context: Context | None) -> None:
        """Counts a finished evaluation that was judged; `context` holds its root span if it was kept."""
        if not self._measures():
            return
        for finding in evaluation.findings:
            self._findings.add(1, _finding_attributes(finding), context or NO_SPAN)
        if context is not None:
            with self._lock:
                self._add(evaluation, context)
            return
        queue = self._queue
        queue.append(evaluation)
        waiting = len(queue)
        if waiting < BATCH and self._histograms[0].folds:
            return
        # Who cannot have the lock leaves the work to others, unless there is too much of it.
        if self._lock.acquire(blocking=waiting >= MAX_QUEUE):
            try:
                self._add_up()
            finally:
                self._lock.release()

    @property
    def watches(self) -> list[Watch]:
        """All that there are."""
        return list(self._watches)

    def watch(
        self,
        evaluation: Evaluation,
        outcome: Outcome,
        expression: str | None,
        passes: Callable[[], int] | None,
        affords: Callable[[], bool],
    ) -> Watch | None:
        """A new watch for evaluations like this one with this outcome.

        None where there is nothing to measure, or no room.
        """
        with self._lock:
            most = MAX_WATCHES if expression is None else MAX_WATCHES - SHARED_WATCHES
            if not self._measures() or len(self._watches) >= most:
                return None
            route, stages = (
                self._routes.route(evaluation, outcome),
                tuple(evaluation.stage_durations()),
            )
            watch = Watch(expression, route, outcome, passes, affords, stages=stages)
            self._watches.append(watch)
        return watch

    def tells_apart(self, template: Template) -> bool:
        """Whether this expression has a label of its own."""
        with self._lock:
            return self._routes.label(template) != semconv.OTHER

    def add_up(self, watch: Watch) -> None:
        """Adds up what waits at a watch, unless another thread is adding up."""
        most = MOST if watch.only_stage is None else CALLS_MOST
        if self._lock.acquire(blocking=watch.waiting() >= most):
            try:
                self._add_notes(watch)
            finally:
                self._lock.release()

    def _measures(self) -> bool:
        """Whether there is an SDK behind the instruments; looks at it when it appears."""
        if self._measured:
            return True
        if folding.sdk_instrument(self._histograms[0].instrument) is None:
            return False
        with self._lock:
            for histogram in self._histograms:
                histogram.look()
            self._let_counters_wait()
            self._measured = True
        return True

    def _let_counters_wait(self) -> None:
        """Sums wait for the next collection only where an SDK that we know will ask for them."""
        waits = any(histogram.folds for histogram in self._histograms)
        for counter in self._counters:
            counter.folds = waits

    def _add_up(self) -> None:
        """Adds what is in the queue now to its series. Callers hold the lock."""
        queue = self._queue
        for _ in range(len(queue)):
            try:
                evaluation = queue.popleft()
            except IndexError:  # A finalizer was faster.
                return
            try:
                self._add(evaluation, None)
            except Exception:  # noqa: BLE001 -- one evaluation must not cost the others, nor the host
                self.lost(semconv.WHAT_EVALUATION, semconv.INTERNAL_ERROR)

    def _add(self, evaluation: Evaluation, context: Context | None) -> None:
        assert evaluation.outcome is not None
        route = self._routes.route(evaluation, evaluation.outcome)
        route.duration.note(evaluation.duration_ns, context)
        if evaluation.detail != semconv.BASIC:
            for stage, active_ns in evaluation.stage_durations().items():
                route.stages[stage].note(active_ns, context)
                if stage == semconv.SQL and route.database is not None:
                    route.database.note(active_ns, context)
        if evaluation.operators:
            for series, active_ns in self._routes.operators(evaluation):
                series.note(active_ns, context)
        if evaluation.result_count is not None and route.results is not None:
            route.results.note(evaluation.result_count, context)
        if route.cache is not None:
            route.cache.add(context)
        route.traces.add(context)
        self._count_detail(evaluation.detail, 1)

    def _add_notes(self, watch: Watch) -> None:
        """Adds what waits at a watch to its series. Callers hold the lock."""
        if self._adding:  # This thread was interrupted while it did so.
            return
        self._adding = True
        try:
            self._add_numbers(watch)
        finally:
            self._adding = False

    def _add_numbers(self, watch: Watch) -> None:
        began_ns = thread_time_ns()
        untimed = watch.unaccounted()
        noted, plain = drained(watch.noted), drained(watch.plain)
        durations, weighed = noted[:: watch.width] + plain[::2], drained(watch.weighed)
        self._under_way.added_up += len(durations) + len(weighed) // 3
        evaluations = len(durations) + sum(weighed[2::3]) + untimed
        if not evaluations:
            return
        try:
            durations.sort()
            detailed = len(noted) // watch.width
            if watch.only_stage is None:
                self._add_stages(watch, noted)
            counts = noted[1 :: watch.width] + plain[1::2]
            self._add_sums(watch, durations, sorted(count for count in counts if count >= 0))
            for duration_ns, count, weight in zip(weighed[::3], weighed[1::3], weighed[2::3], strict=True):
                self._add_sums(watch, [duration_ns], [count], weight)
            if untimed:
                # They await the next one that is timed; until now the mean stands for them.
                self._add_sums(watch, [round(watch.mean_ns)], [], untimed)
            if weighed:
                durations = sorted(durations + weighed[::3])
            timed = len(durations)
            self._count(watch, durations, evaluations)
            detailed = timed if watch.only_stage is not None else detailed
            self._count_detail(semconv.STAGE_DETAIL, detailed)
            self._count_detail(semconv.BASIC, timed - detailed)
            self._count_detail(semconv.COUNTED, evaluations - timed)
            if durations:
                self._learn(watch, durations, evaluations, thread_time_ns() - began_ns)
        except Exception:  # noqa: BLE001 -- neither the other expressions nor the host may suffer
            self.lost(semconv.WHAT_EVALUATION, semconv.INTERNAL_ERROR, evaluations)

    def _add_sums(self, watch: Watch, durations: list[int], results: list[int], weight: int = 1) -> None:
        route = watch.route
        route.duration.note_all(durations, weight)
        if watch.only_stage is not None:
            route.stages[watch.only_stage].note_all(durations, weight)
        if route.results is not None:
            route.results.note_all(results, weight)

    def _add_stages(self, watch: Watch, noted: list[int]) -> None:
        for place, stage in enumerate(watch.stages, 2):
            values = sorted(noted[place :: watch.width])
            watch.route.stages[stage].note_all(values)
            if stage == semconv.SQL and watch.route.database is not None:
                watch.route.database.note_all(values)

    def _count(self, watch: Watch, durations: list[int], evaluations: int) -> None:
        """Counts what became of the traces: some would have been kept, had that been paid."""
        route = watch.route
        slow = len(durations) - bisect_right(durations, watch.usual_ns)
        unpaid = watch.take_unpaid(evaluations - slow)
        route.traces.add(None, evaluations - slow - unpaid)
        for reason, count in ((semconv.SLOW, slow), (semconv.BASELINE, unpaid)):
            if count:
                self._suppressed(reason, count)
                route.suppressed[reason].add(None, count)
        if route.cache is not None:
            route.cache.add(None, evaluations)

    def _count_detail(self, detail: str, count: int) -> None:
        if count:
            self._recorded[detail] += count
            self._routes.details[detail].add(None, count)

    def _fold(self) -> None:
        with self._lock:
            self._add_up()
            for watch in self._watches:
                if not watch.is_idle():
                    self._add_notes(watch)
            lost = [histogram.fold() for histogram in self._histograms]
            if any(lost):
                # An evaluation has one duration; if only others were lost, rather count too many than none.
                self.lost(semconv.WHAT_EVALUATION, semconv.INTERNAL_ERROR, lost[0] or max(lost))
            for counter in self._counters:
                counter.fold()
            self._let_counters_wait()

    def _observe(self, meter: Meter) -> None:
        observed = (
            (semconv.EVALUATION_ACTIVE, meter.create_observable_up_down_counter, self._observe_active),
            (semconv.EXPRESSION_INFO, meter.create_observable_gauge, self._observe_expressions),
            (semconv.DETAIL_INTERVAL, meter.create_observable_gauge, self._observe_intervals),
            (semconv.OVERHEAD_RATIO, meter.create_observable_gauge, self._observe_ratio),
        )
        for metric, create, callback in observed:
            create(metric.name, [callback], metric.unit, metric.meaning)

    def _observe_active(self, _: CallbackOptions) -> Iterable[Observation]:
        # The first of our callbacks: the SDK runs all of them before it reads what was recorded.
        self._catch_up()
        self._fold()
        forgotten = self._under_way.take_forgotten()
        if forgotten:
            self.lost(semconv.WHAT_EVALUATION, semconv.NOT_FINISHED, forgotten)
        with self._lock:
            # Some have ended since the fold, and wait to be added up.
            ended = sum(watch.waiting() for watch in self._watches)
            return [Observation(self._under_way.count(ended))]

    def _observe_expressions(self, _: CallbackOptions) -> Iterable[Observation]:
        self._fold()
        return [
            Observation(1, {semconv.EXPRESSION_HASH.name: key, semconv.EXPRESSION_TEMPLATE.name: text})
            for key, text in list(self._routes.templates.items())
            if text is not None
        ]

    def _observe_intervals(self, _: CallbackOptions) -> Iterable[Observation]:
        self._fold()
        recorded = [self._recorded[detail] for detail in semconv.DETAIL.values]
        return [
            Observation(sum(recorded) / sum(recorded[place:]), {semconv.DETAIL.name: detail})
            for place, detail in enumerate(semconv.DETAIL.values)
            if sum(recorded[place:])
        ]

    def _observe_ratio(self, _: CallbackOptions) -> Iterable[Observation]:
        self._fold()
        ratio = self._ratio()
        return [] if ratio is None else [Observation(ratio)]

    def _survive_forks(self) -> None:
        """A fork waits for who adds up or folds: the child would have the SDK's locks held by nobody, for ever."""
        call_around_forks(self._before_fork, self._after_fork, self._in_child)

    def _before_fork(self) -> None:
        self._lock.acquire()
        self._forking = True

    def _after_fork(self) -> None:
        if self._forking:  # Else made by another thread during the fork.
            self._forking = False
            self._lock.release()

    def _in_child(self) -> None:
        """What is under way or waits in the parent is the parent's."""
        self._lock, self._forking, self._adding = RLock(), False, False
        self._queue.clear()
        for watch in self._watches:
            watch.forget()
        self._under_way.inherit()
        for series in (*self._histograms, *self._counters):
            series.clear()


def _nobody_asks(_: str, __: int) -> None:
    """Without a sampler that says it beforehand, each evaluation is judged."""


def _finding_attributes(finding: Finding) -> dict[str, str]:
    return {
        semconv.FINDING_RULE.name: finding.rule,
        semconv.FINDING_SEVERITY.name: finding.severity,
        semconv.FINDING_STAGE.name: finding.stage,
    }

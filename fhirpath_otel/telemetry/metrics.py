"""The metrics, fed by every evaluation before any sampling.

A kept evaluation is recorded in the context of its span: an exemplar then always points at a trace that exists. All
others only enter a queue here; every `BATCH` of them are added up by the thread that comes last, and the SDK gets sums
when it collects. Ten calls of instruments cost 65 µs an evaluation, this 3 µs. One queue for all threads, because
appending to a deque is atomic: per thread there would be no less to add up, and dead threads to look after.

The number of attribute sets is bounded, as each becomes a time series.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING

from opentelemetry.metrics import Observation

from fhirpath_otel import semconv
from fhirpath_otel.telemetry import folding
from fhirpath_otel.telemetry.forks import call_around_forks
from fhirpath_otel.telemetry.series import (
    NO_SPAN,
    Attributes,
    CounterSeries,
    FoldedCounter,
    FoldedHistogram,
    HistogramSeries,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Meter

    from fhirpath_otel.telemetry.evaluation import Evaluation, Outcome
    from fhirpath_otel.telemetry.finding import Finding
    from fhirpath_otel.telemetry.redaction import Disclosure, Template

MAX_SERIES = 1_100
"""Attribute sets of `fhirpath.evaluation.duration`; all of a process's metrics then stay below 2,000 series."""

MAX_OTHER_SERIES = 100
"""Beyond `MAX_SERIES` so many more, which do not tell expressions apart; as many of database operations."""

MAX_SMALL_SERIES = 20
"""Attribute sets of each of the other metrics, which have fewer by their nature."""

BATCH = 16
"""Evaluations that are added up at once: more would be a hiccup that a caller notices, fewer cost more locking."""

MAX_QUEUE = 2_048
"""Evaluations that may wait while another thread adds up; beyond that a caller waits for it."""

MAX_ABANDONED = 1_000_000
"""Evaluations begun and never finished that may wait to be counted, should nobody ever collect."""

NANOSECONDS = 1_000_000_000

_OVERFLOW = {semconv.EXPRESSION_HASH.name: semconv.OTHER}
_OTHER_STAGE = {semconv.ENGINE_NAME.name: semconv.OTHER}
_OTHER_DATABASE = {semconv.DB_SYSTEM_NAME.name: semconv.OTHER}
_OTHER_MODE = {semconv.EXECUTION_MODE.name: semconv.OTHER}
_OTHER_REASON = {semconv.DECISION_REASON.name: semconv.OTHER}


@dataclass(frozen=True, slots=True)
class _Route:
    """The series that evaluations of one kind add to."""

    duration: HistogramSeries
    stages: dict[str, HistogramSeries]
    database: HistogramSeries | None
    results: HistogramSeries | None
    cache: CounterSeries | None
    traces: CounterSeries


class Instruments:
    """The instruments of one meter. Threads may share it; a fork waits until nobody adds up.

    Beyond `max_expressions` an expression is only called `other`.
    """

    def __init__(self, meter: Meter, disclosure: Disclosure, max_expressions: int) -> None:
        self._disclosure = disclosure
        self._max_expressions = max_expressions
        self._templates: dict[str, str | None] = {}
        self._routes: dict[tuple[object, ...], _Route] = {}
        # Appending and popping are atomic, so that neither of them needs a lock.
        self._active: deque[None] = deque()
        self._abandoned: deque[None] = deque(maxlen=MAX_ABANDONED)
        self._abandon = partial(self._forgotten, os.getpid())
        self._queue: deque[Evaluation] = deque()
        self._measured = False
        self._lock = RLock()  # A finalizer may end an evaluation while its thread adds up.
        self._duration = FoldedHistogram(
            meter, semconv.EVALUATION_DURATION, NANOSECONDS, MAX_SERIES + MAX_OTHER_SERIES
        )
        self._stage_duration = FoldedHistogram(meter, semconv.STAGE_DURATION, NANOSECONDS, MAX_SMALL_SERIES)
        self._db_duration = FoldedHistogram(
            meter, semconv.DB_OPERATION_DURATION, NANOSECONDS, MAX_OTHER_SERIES
        )
        self._result_count = FoldedHistogram(meter, semconv.RESULT_COUNT, 1, MAX_SMALL_SERIES)
        self._cache_requests = FoldedCounter(meter, semconv.PARSER_CACHE_REQUESTS, MAX_SMALL_SERIES)
        self._traces = FoldedCounter(meter, semconv.TRACES, MAX_SMALL_SERIES)
        self._histograms = (self._duration, self._stage_duration, self._db_duration, self._result_count)
        self._counters = (self._cache_requests, self._traces)
        lost, active, info = semconv.LOST, semconv.EVALUATION_ACTIVE, semconv.EXPRESSION_INFO
        findings = semconv.FINDINGS
        self._findings = meter.create_counter(findings.name, findings.unit, findings.meaning)
        self._lost = meter.create_counter(lost.name, lost.unit, lost.meaning)
        meter.create_observable_up_down_counter(
            active.name, [self._observe_active], active.unit, active.meaning
        )
        meter.create_observable_gauge(info.name, [self._observe_expressions], info.unit, info.meaning)
        self._survive_forks()

    def begun(self, evaluation: Evaluation) -> None:
        """Counts an evaluation as active, until it has ended or nobody knows it any more."""
        self._active.append(None)
        evaluation.abandoned = self._abandon

    def ended(self, evaluation: Evaluation) -> None:
        """Counts an evaluation as active no more."""
        if evaluation.abandoned is self._abandon and self._active:
            self._active.pop()
        evaluation.abandoned = None

    def lost(self, what: str, reason: str, count: int = 1) -> None:
        """Counts telemetry that was lost."""
        self._lost.add(count, {semconv.LOST_WHAT.name: what, semconv.LOST_REASON.name: reason}, NO_SPAN)

    def record(self, evaluation: Evaluation, context: Context | None) -> None:
        """Counts a finished evaluation; `context` holds its root span if it was kept."""
        if not (self._measured or self._measure()):
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
        if waiting < BATCH and self._duration.folds:
            return
        # Who cannot have the lock leaves the work to others, unless there is too much of it.
        if self._lock.acquire(blocking=waiting >= MAX_QUEUE):
            try:
                self._add_up()
            finally:
                self._lock.release()

    def _forgotten(self, begun_in: int) -> None:
        """Called by a finalizer, so wherever it may be, also within an instrument: takes no lock."""
        if begun_in != os.getpid():
            return
        if self._active:
            self._active.pop()
        self._abandoned.append(None)

    def _count_abandoned(self) -> None:
        count = len(self._abandoned)
        for _ in range(count):
            self._abandoned.pop()
        if count:
            self.lost(semconv.WHAT_EVALUATION, semconv.NOT_FINISHED, count)

    def _measure(self) -> bool:
        """Whether there is an SDK behind the instruments; looks at it when it appears."""
        if folding.sdk_instrument(self._duration.instrument) is None:
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
        route = self._route(evaluation)
        route.duration.note(evaluation.duration_ns, context)
        for stage, active_ns in evaluation.stage_durations().items():
            route.stages[stage].note(active_ns, context)
            if stage == semconv.SQL and route.database is not None:
                route.database.note(active_ns, context)
        if evaluation.result_count is not None and route.results is not None:
            route.results.note(evaluation.result_count, context)
        if route.cache is not None:
            route.cache.add(context)
        route.traces.add(context)

    def _fold(self) -> None:
        with self._lock:
            self._add_up()
            lost = [histogram.fold() for histogram in self._histograms]
            if any(lost):
                # An evaluation has one duration; if only others were lost, rather count too many than none.
                self.lost(semconv.WHAT_EVALUATION, semconv.INTERNAL_ERROR, lost[0] or max(lost))
            for counter in self._counters:
                counter.fold()
            self._let_counters_wait()

    def _route(self, evaluation: Evaluation) -> _Route:
        outcome, stages = evaluation.outcome, evaluation.stages
        assert outcome is not None
        label = self._label(evaluation.template)
        failed = stages[-1][0] if stages and evaluation.error_type is not None else None
        key = (
            *(evaluation.engine_name, evaluation.engine_version, evaluation.execution_mode),
            *(evaluation.error_type, failed, label, evaluation.db_system, evaluation.statement_summary),
            *(evaluation.cache_hit, outcome.decision, outcome.reason),
        )
        known = self._routes.get(key)
        if known is None:
            if len(self._routes) >= 2 * MAX_SERIES:
                # Only a cache: the series themselves stay.
                self._routes.clear()
            known = self._routes[key] = self._new_route(evaluation, outcome, label)
        return known

    def _new_route(self, evaluation: Evaluation, outcome: Outcome, label: str | None) -> _Route:
        mode, hit = evaluation.execution_mode, evaluation.cache_hit
        results, cache = None, None
        if mode is not None:
            results = self._result_count.series({semconv.EXECUTION_MODE.name: mode}, _OTHER_MODE)
        if hit is not None:
            cache = self._cache_requests.series({semconv.CACHE_RESULT.name: "hit" if hit else "miss"})
        database = None
        if evaluation.db_system is not None:
            database = self._db_duration.series(self._db_attributes(evaluation), _OTHER_DATABASE)
        decision = {
            semconv.DECISION.name: outcome.decision,
            semconv.DECISION_REASON.name: outcome.reason,
        }
        return _Route(
            duration=self._duration_series(evaluation, label),
            stages={stage: self._stage_series(stage, evaluation.engine_name) for stage in semconv.STAGES},
            database=database,
            results=results,
            cache=cache,
            traces=self._traces.series(decision, _OTHER_REASON),
        )

    def _duration_series(self, evaluation: Evaluation, label: str | None) -> HistogramSeries:
        values = {
            semconv.ENGINE_NAME: evaluation.engine_name,
            semconv.ENGINE_VERSION: evaluation.engine_version,
            semconv.EXECUTION_MODE: evaluation.execution_mode,
            semconv.ERROR_TYPE: evaluation.error_type,
            semconv.EXPRESSION_HASH: label,
        }
        attributes = {item.name: value for item, value in values.items() if value is not None}
        histogram = self._duration
        if not histogram.has_room(attributes, MAX_SERIES) and label is not None:
            attributes[semconv.EXPRESSION_HASH.name] = semconv.OTHER
        return histogram.series(attributes, _OVERFLOW)

    def _stage_series(self, stage: str, engine: str) -> HistogramSeries:
        attributes = {semconv.STAGE.name: stage, semconv.ENGINE_NAME.name: engine}
        return self._stage_duration.series(attributes, {semconv.STAGE.name: stage, **_OTHER_STAGE})

    def _label(self, template: Template | None) -> str | None:
        """The expression's hash while there is room for it."""
        if template is None:
            return None
        if template.text is None:
            return semconv.UNPARSABLE
        if template.hash not in self._templates:
            if len(self._templates) >= self._max_expressions:
                return semconv.OTHER
            self._templates[template.hash] = self._disclosure.template(template)
        return template.hash

    def _db_attributes(self, evaluation: Evaluation) -> Attributes:
        attributes = {semconv.DB_SYSTEM_NAME.name: evaluation.db_system or semconv.OTHER}
        if evaluation.statement_summary is not None:
            operation, collection = self._disclosure.statement(evaluation.statement_summary)
            attributes[semconv.DB_OPERATION_NAME.name] = operation
            if collection is not None:
                attributes[semconv.DB_COLLECTION_NAME.name] = collection
        stages = evaluation.stages
        if evaluation.error_type is not None and stages and stages[-1][0] == semconv.SQL:
            attributes[semconv.ERROR_TYPE.name] = evaluation.error_type
        return attributes

    def _observe_active(self, _: CallbackOptions) -> Iterable[Observation]:
        # The first of our callbacks: the SDK runs all of them before it reads what was recorded.
        self._fold()
        self._count_abandoned()
        return [Observation(len(self._active))]

    def _observe_expressions(self, _: CallbackOptions) -> Iterable[Observation]:
        self._fold()
        return [
            Observation(1, {semconv.EXPRESSION_HASH.name: key, semconv.EXPRESSION_TEMPLATE.name: text})
            for key, text in list(self._templates.items())
            if text is not None
        ]

    def _survive_forks(self) -> None:
        """A fork waits for who adds up or folds: the child would have the SDK's locks held by nobody, for ever."""
        call_around_forks(self._before_fork, self._after_fork, self._in_child)

    def _before_fork(self) -> None:
        self._lock.acquire()

    def _after_fork(self) -> None:
        self._lock.release()

    def _in_child(self) -> None:
        """What is under way or waits in the parent is the parent's."""
        self._lock = RLock()
        self._active.clear()
        self._abandoned.clear()
        self._abandon = partial(self._forgotten, os.getpid())
        self._queue.clear()
        for series in (*self._histograms, *self._counters):
            series.clear()


def _finding_attributes(finding: Finding) -> dict[str, str]:
    return {
        semconv.FINDING_RULE.name: finding.rule,
        semconv.FINDING_SEVERITY.name: finding.severity,
        semconv.FINDING_STAGE.name: finding.stage,
    }

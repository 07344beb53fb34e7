"""Which series an evaluation adds to. The number of attribute sets is bounded, as each becomes a time series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.operators import MOST_SERIES, operator_values
from fhirpath_otel.telemetry.series import (
    Attributes,
    CounterSeries,
    FoldedCounter,
    FoldedHistogram,
    HistogramSeries,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.metrics import Meter

    from fhirpath_otel.telemetry.evaluation import Evaluation, Outcome
    from fhirpath_otel.telemetry.redaction import Disclosure, Template

MAX_SERIES = 950
"""Attribute sets of `fhirpath.evaluation.duration`; all of a process's metrics then stay below 2,000 series."""

MAX_OTHER_SERIES = 100
"""Beyond `MAX_SERIES` so many more, which do not tell expressions apart; as many of database operations."""

MAX_SMALL_SERIES = 20
"""Attribute sets of each of the other metrics, which have fewer by their nature."""

NANOSECONDS = 1_000_000_000

_OVERFLOW = {semconv.EXPRESSION_HASH.name: semconv.OTHER}
_OTHER_STAGE = {semconv.ENGINE_NAME.name: semconv.OTHER}
_OTHER_OPERATOR = {semconv.OPERATOR_NAME.name: semconv.OTHER}
_OTHER_DATABASE = {semconv.DB_SYSTEM_NAME.name: semconv.OTHER}
_OTHER_MODE = {semconv.EXECUTION_MODE.name: semconv.OTHER}
_SUPPRESSED_SLOW = {
    semconv.DECISION.name: semconv.SUPPRESSED,
    semconv.DECISION_REASON.name: semconv.SLOW,
}
_OTHER_REASON = {semconv.DECISION_REASON.name: semconv.OTHER}


@dataclass(frozen=True, slots=True)
class Route:
    """The series that evaluations of one kind add to."""

    duration: HistogramSeries
    stages: dict[str, HistogramSeries]
    database: HistogramSeries | None
    results: HistogramSeries | None
    cache: CounterSeries | None
    traces: CounterSeries
    slow: CounterSeries


class Routes:
    """The metrics that evaluations feed, of one meter. Callers hold a lock.

    Beyond `max_expressions` an expression is only called `other`.
    """

    def __init__(self, meter: Meter, disclosure: Disclosure, max_expressions: int) -> None:
        self.templates: dict[str, str | None] = {}
        self._disclosure = disclosure
        self._max_expressions = max_expressions
        self._routes: dict[tuple[object, ...], Route] = {}
        self._duration = FoldedHistogram(
            meter, semconv.EVALUATION_DURATION, NANOSECONDS, MAX_SERIES + MAX_OTHER_SERIES
        )
        self._stage_duration = FoldedHistogram(meter, semconv.STAGE_DURATION, NANOSECONDS, MAX_SMALL_SERIES)
        self._operator_duration = FoldedHistogram(meter, semconv.OPERATOR_DURATION, NANOSECONDS, MOST_SERIES)
        self._db_duration = FoldedHistogram(
            meter, semconv.DB_OPERATION_DURATION, NANOSECONDS, MAX_OTHER_SERIES
        )
        self._result_count = FoldedHistogram(meter, semconv.RESULT_COUNT, 1, MAX_SMALL_SERIES)
        self._cache_requests = FoldedCounter(meter, semconv.PARSER_CACHE_REQUESTS, MAX_SMALL_SERIES)
        self._traces = FoldedCounter(meter, semconv.TRACES, MAX_SMALL_SERIES)
        self._evaluations = FoldedCounter(meter, semconv.EVALUATIONS, MAX_SMALL_SERIES)
        # The first of the histograms has a value of every evaluation.
        self.histograms = (
            *(self._duration, self._stage_duration, self._operator_duration),
            *(self._db_duration, self._result_count),
        )
        self.counters = (self._cache_requests, self._traces, self._evaluations)
        self.details = {
            detail: self._evaluations.series({semconv.DETAIL.name: detail})
            for detail in semconv.DETAIL.values
        }

    def route(self, evaluation: Evaluation, outcome: Outcome) -> Route:
        """The series for an evaluation like this with this outcome."""
        stages = evaluation.stages
        label = self.label(evaluation.template)
        failed = stages[-1][0] if stages and evaluation.error_type is not None else None
        key = (
            *(evaluation.engine_name, evaluation.engine_version, evaluation.execution_mode),
            *(evaluation.error_type, failed, label, evaluation.db_system, evaluation.statement_summary),
            *(evaluation.cache_hit, outcome.decision, outcome.reason, evaluation.dimensions),
        )
        known = self._routes.get(key)
        if known is None:
            if len(self._routes) >= 2 * MAX_SERIES:
                # Only a cache: the series themselves stay.
                self._routes.clear()
            known = self._routes[key] = self._new_route(evaluation, outcome, label)
        return known

    def operators(self, evaluation: Evaluation) -> Iterator[tuple[HistogramSeries, int]]:
        """The series of the evaluation's operators, with the nanoseconds of each."""
        engine = {semconv.ENGINE_NAME.name: evaluation.engine_name}
        for name, active_ns in operator_values(evaluation, self._disclosure):
            attributes = {semconv.OPERATOR_NAME.name: name, **engine}
            yield self._operator_duration.series(attributes, _OTHER_OPERATOR), active_ns

    def label(self, template: Template | None) -> str | None:
        """The expression's hash while there is room for it."""
        if template is None:
            return None
        if template.text is None:
            return semconv.UNPARSABLE
        if template.hash not in self.templates:
            if len(self.templates) >= self._max_expressions:
                return semconv.OTHER
            self.templates[template.hash] = self._disclosure.template(template)
        return template.hash

    def _new_route(self, evaluation: Evaluation, outcome: Outcome, label: str | None) -> Route:
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
        return Route(
            duration=self._duration_series(evaluation, label),
            stages={stage: self._stage_series(stage, evaluation.engine_name) for stage in semconv.STAGES},
            database=database,
            results=results,
            cache=cache,
            traces=self._traces.series(decision, _OTHER_REASON),
            slow=self._traces.series(_SUPPRESSED_SLOW),
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
        attributes |= dict(evaluation.dimensions)
        histogram = self._duration
        if not histogram.has_room(attributes, MAX_SERIES) and label is not None:
            attributes[semconv.EXPRESSION_HASH.name] = semconv.OTHER
        return histogram.series(attributes, _OVERFLOW)

    def _stage_series(self, stage: str, engine: str) -> HistogramSeries:
        attributes = {semconv.STAGE.name: stage, semconv.ENGINE_NAME.name: engine}
        return self._stage_duration.series(attributes, {semconv.STAGE.name: stage, **_OTHER_STAGE})

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

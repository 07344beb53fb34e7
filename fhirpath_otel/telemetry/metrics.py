"""The metrics, fed by every evaluation before any sampling.

A kept evaluation is recorded in the context of its span, all others in an empty one: an exemplar then always points
at a trace that exists. The number of attribute sets is bounded, as each becomes a time series.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.metrics import Observation

from fhirpath_otel import semconv

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter

    from fhirpath_otel.telemetry.evaluation import Evaluation, Outcome
    from fhirpath_otel.telemetry.finding import Finding
    from fhirpath_otel.telemetry.redaction import Disclosure, Template

MAX_SERIES = 1_200
"""Attribute sets of `fhirpath.evaluation.duration`; all of a process's metrics then stay below 2,000 series."""

_NO_SPAN = Context()


class Instruments:
    """The instruments of one meter. Threads may share it; it takes no lock of its own, which a fork could leave held.

    Beyond `max_expressions` an expression is only called `other`.
    """

    def __init__(self, meter: Meter, disclosure: Disclosure, max_expressions: int) -> None:
        self._disclosure = disclosure
        self._max_expressions = max_expressions
        self._templates: dict[str, str | None] = {}
        self._evaluation_series: dict[tuple[str | None, ...], dict[str, str]] = {}
        self._stage_series: dict[tuple[str, str], dict[str, str]] = {}
        # Appending and popping are atomic, so that counting the active ones needs no lock.
        self._active: deque[None] = deque()
        if hasattr(os, "register_at_fork"):
            # What is under way in the parent never ends in a child.
            os.register_at_fork(after_in_child=self._active.clear)
        self._duration = _histogram(meter, semconv.EVALUATION_DURATION)
        self._stage_duration = _histogram(meter, semconv.STAGE_DURATION)
        self._db_duration = _histogram(meter, semconv.DB_OPERATION_DURATION)
        self._result_count = _histogram(meter, semconv.RESULT_COUNT)
        self._cache_requests = _counter(meter, semconv.PARSER_CACHE_REQUESTS)
        self._findings = _counter(meter, semconv.FINDINGS)
        self._traces = _counter(meter, semconv.TRACES)
        self._lost = _counter(meter, semconv.LOST)
        active, info = semconv.EVALUATION_ACTIVE, semconv.EXPRESSION_INFO
        meter.create_observable_up_down_counter(
            active.name, [self._observe_active], active.unit, active.meaning
        )
        meter.create_observable_gauge(info.name, [self._observe_expressions], info.unit, info.meaning)

    def begun(self) -> None:
        """Counts an evaluation as active."""
        self._active.append(None)

    def ended(self) -> None:
        """Counts an evaluation as active no more."""
        if self._active:
            self._active.pop()

    def lost(self, what: str, reason: str, count: int = 1) -> None:
        """Counts telemetry that was lost."""
        self._lost.add(count, {semconv.LOST_WHAT.name: what, semconv.LOST_REASON.name: reason}, _NO_SPAN)

    def record(self, evaluation: Evaluation, outcome: Outcome, context: Context | None) -> None:
        """Counts a finished evaluation; `context` holds its root span if it was kept."""
        context = context or _NO_SPAN
        self._duration.record(evaluation.duration_ns / 1e9, self._evaluation_attributes(evaluation), context)
        for stage, active_ns in evaluation.stage_durations().items():
            attributes = self._stage_attributes(stage, evaluation.engine_name)
            self._stage_duration.record(active_ns / 1e9, attributes, context)
            if stage == semconv.SQL and evaluation.db_system is not None:
                self._db_duration.record(active_ns / 1e9, self._db_attributes(evaluation), context)
        if evaluation.result_count is not None and evaluation.execution_mode is not None:
            attributes = {semconv.EXECUTION_MODE.name: evaluation.execution_mode}
            self._result_count.record(evaluation.result_count, attributes, context)
        if evaluation.cache_hit is not None:
            result = "hit" if evaluation.cache_hit else "miss"
            self._cache_requests.add(1, {semconv.CACHE_RESULT.name: result}, context)
        for finding in evaluation.findings:
            self._findings.add(1, _finding_attributes(finding), context)
        decision = {semconv.DECISION.name: outcome.decision, semconv.DECISION_REASON.name: outcome.reason}
        self._traces.add(1, decision, context)

    def _evaluation_attributes(self, evaluation: Evaluation) -> dict[str, str]:
        engine, version = evaluation.engine_name, evaluation.engine_version
        mode, error_type = evaluation.execution_mode, evaluation.error_type
        label = self._label(evaluation.template)
        key = (engine, version, mode, error_type, label)
        known = self._evaluation_series.get(key)
        if known is not None:
            return known
        if len(self._evaluation_series) >= MAX_SERIES:
            label = semconv.OTHER
        values = {
            semconv.ENGINE_NAME: engine,
            semconv.ENGINE_VERSION: version,
            semconv.EXECUTION_MODE: mode,
            semconv.ERROR_TYPE: error_type,
            semconv.EXPRESSION_HASH: label,
        }
        attributes = {item.name: value for item, value in values.items() if value is not None}
        if len(self._evaluation_series) < MAX_SERIES:
            self._evaluation_series[key] = attributes
        return attributes

    def _stage_attributes(self, stage: str, engine: str) -> dict[str, str]:
        known = self._stage_series.get((stage, engine))
        if known is None:
            if stage not in semconv.STAGES:
                raise ValueError("not a stage of an evaluation")
            known = {semconv.STAGE.name: stage, semconv.ENGINE_NAME.name: engine}
            self._stage_series[stage, engine] = known
        return known

    def _label(self, template: Template | None) -> str | None:
        """The expression's hash while there is room for it. Threads that race may exceed the cap by one each."""
        if template is None:
            return None
        if template.text is None:
            return semconv.UNPARSABLE
        if template.hash not in self._templates:
            if len(self._templates) >= self._max_expressions:
                return semconv.OTHER
            self._templates[template.hash] = self._disclosure.template(template)
        return template.hash

    def _db_attributes(self, evaluation: Evaluation) -> dict[str, str]:
        attributes = {semconv.DB_SYSTEM_NAME.name: evaluation.db_system or semconv.OTHER}
        if evaluation.statement_summary is not None:
            operation, collection = self._disclosure.statement(evaluation.statement_summary)
            attributes[semconv.DB_OPERATION_NAME.name] = operation
            if collection is not None:
                attributes[semconv.DB_COLLECTION_NAME.name] = collection
        if evaluation.error_type is not None and evaluation.stages[-1][0] == semconv.SQL:
            attributes[semconv.ERROR_TYPE.name] = evaluation.error_type
        return attributes

    def _observe_active(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(len(self._active))]

    def _observe_expressions(self, _: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(1, {semconv.EXPRESSION_HASH.name: key, semconv.EXPRESSION_TEMPLATE.name: text})
            for key, text in list(self._templates.items())
            if text is not None
        ]


def _finding_attributes(finding: Finding) -> dict[str, str]:
    return {
        semconv.FINDING_RULE.name: finding.rule,
        semconv.FINDING_SEVERITY.name: finding.severity,
        semconv.FINDING_STAGE.name: finding.stage,
    }


def _histogram(meter: Meter, metric: semconv.Metric) -> Histogram:
    return meter.create_histogram(
        metric.name,
        metric.unit,
        metric.meaning,
        explicit_bucket_boundaries_advisory=metric.boundaries,
    )


def _counter(meter: Meter, metric: semconv.Metric) -> Counter:
    return meter.create_counter(metric.name, metric.unit, metric.meaning)

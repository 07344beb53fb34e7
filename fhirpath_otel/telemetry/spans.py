"""Kept evaluations become spans: through the API, afterwards, with the times that were noted."""

from __future__ import annotations

from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.evaluation import Outcome
from fhirpath_otel.telemetry.own_tracer import start_root, start_stage
from fhirpath_otel.telemetry.tracestate import incoming_threshold

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

    from fhirpath_otel.telemetry.evaluation import Decision, Evaluation
    from fhirpath_otel.telemetry.finding import Finding
    from fhirpath_otel.telemetry.operators import OperatorTime
    from fhirpath_otel.telemetry.redaction import Disclosure

    Attributes = dict[str, AttributeValue]

_EMBEDDED = ("duckdb",)
_STAGE_SPANS = {stage: semconv.STAGE_SPAN.name.replace("{stage}", stage) for stage in semconv.STAGES}
_STAGE_DURATIONS = {
    stage: semconv.STAGE_DURATION_ATTRIBUTE.name.replace("{stage}", stage) for stage in semconv.STAGES
}
_NO_SDK = Outcome(False, semconv.DROPPED, semconv.NO_SDK)
_HOST_SAMPLER = Outcome(False, semconv.DROPPED, semconv.HOST_SAMPLER)


def write_spans(
    tracer: trace.Tracer,
    evaluation: Evaluation,
    decision: Decision,
    disclosure: Disclosure,
    *,
    with_stages: bool = True,
) -> tuple[Outcome, Context | None]:
    """The root span with its stages below it, where they are wanted; returns the outcome and the root's context.

    The host's own sampler is asked again by its SDK, and may refuse what was to be kept.
    """
    resource_type = disclosure.type_name(evaluation.resource_type)
    # One offset for the whole trace, so that a clock that is set meanwhile cannot tear it apart.
    offset_ns = time_ns() - perf_counter_ns()
    root = start_root(
        tracer,
        semconv.EVALUATE_SPAN.name.replace("{resource type}", resource_type or "").rstrip(),
        evaluation.context,
        _root_attributes(evaluation, decision, disclosure, resource_type, with_stages=with_stages),
        evaluation.start_ns + offset_ns,
        threshold=_threshold(evaluation, decision),
        randomness=decision.randomness,
        identity=evaluation.premade,
    )
    identity = root.get_span_context()
    if not (root.is_recording() and identity.trace_flags.sampled):
        return _refusal(root, evaluation), None
    context = trace.set_span_in_context(root, evaluation.context)
    failed = len(evaluation.stages) - 1 if evaluation.error_type is not None else None
    for number, (stage, start_ns, end_ns) in enumerate(evaluation.stages if with_stages else ()):
        name, kind, attributes = _stage(stage, evaluation, disclosure)
        premade = evaluation.premade if stage == semconv.SQL else None
        span = start_stage(
            tracer, name, context, kind, attributes, start_time=start_ns + offset_ns, identity=premade
        )
        evaluation.sql_written = evaluation.sql_written or premade is not None
        if stage == semconv.IN_MEMORY and evaluation.operators:
            below = trace.set_span_in_context(span, context)
            _write_operators(tracer, evaluation.operators, below, disclosure, start_ns + offset_ns)
        _end(span, end_ns + offset_ns, evaluation.error_type if number == failed else None)
    _end(root, evaluation.end_ns + offset_ns, evaluation.error_type)
    return Outcome(True, semconv.KEPT, decision.reason, identity.trace_id), context


def _write_operators(
    tracer: trace.Tracer,
    operators: tuple[OperatorTime, ...],
    context: Context,
    disclosure: Disclosure,
    begin_ns: int,
) -> None:
    """One span an operator, one after the other from the beginning of the stage, as long as each was active."""
    for operator in operators:
        name = disclosure.operator_name(operator.name)
        attributes = _operator_attributes(name, operator)
        span_name = semconv.OPERATOR_SPAN.name.replace("{operator}", name)
        span = tracer.start_span(span_name, context, SpanKind.INTERNAL, attributes, start_time=begin_ns)
        begin_ns += operator.active_ns
        span.end(begin_ns)


def _operator_attributes(name: str, operator: OperatorTime) -> Attributes:
    attributes: Attributes = {
        semconv.TIMING.name: semconv.ATTRIBUTED,
        semconv.OPERATOR_NAME.name: name,
        semconv.OPERATOR_CALLS.name: operator.calls,
        semconv.OPERATOR_INPUT_COUNT.name: operator.input_count,
        semconv.OPERATOR_OUTPUT_COUNT.name: operator.output_count,
    }
    if operator.position is not None:
        attributes[semconv.OPERATOR_POSITION.name] = operator.position
    if operator.length is not None:
        attributes[semconv.OPERATOR_LENGTH.name] = operator.length
    return attributes


def _threshold(evaluation: Evaluation, decision: Decision) -> int | None:
    """The threshold of the reason and the caller's together; None where one of them is not known."""
    if decision.threshold is None or evaluation.caller is None:
        return decision.threshold
    incoming = incoming_threshold(evaluation.caller)
    return None if incoming is None else max(decision.threshold, incoming)


def _refusal(root: Span, evaluation: Evaluation) -> Outcome:
    """Without an SDK the API makes no span of its own: it is invalid, or the parent again."""
    identity = root.get_span_context()
    parent = trace.get_current_span(evaluation.context).get_span_context()
    if identity.is_valid and identity.span_id != parent.span_id:
        root.end()
        return _HOST_SAMPLER
    return _NO_SDK


def _end(span: Span, end_ns: int, error_type: str | None) -> None:
    if error_type is not None:
        span.set_attribute(semconv.ERROR_TYPE.name, error_type)
        span.set_status(Status(StatusCode.ERROR))
    span.end(end_ns)


def _root_attributes(
    evaluation: Evaluation,
    decision: Decision,
    disclosure: Disclosure,
    resource_type: str | None,
    *,
    with_stages: bool,
) -> Attributes:
    template = evaluation.template
    facts: dict[semconv.Attribute, AttributeValue | None] = {
        semconv.ENGINE_NAME: evaluation.engine_name,
        semconv.ENGINE_VERSION: evaluation.engine_version,
        semconv.FHIR_VERSION: evaluation.fhir_version,
        semconv.RESOURCE_TYPE: resource_type,
        semconv.EXECUTION_MODE: evaluation.execution_mode,
        semconv.EXPRESSION_HASH: None if template is None else template.hash,
        semconv.EXPRESSION_TEMPLATE: None if template is None else disclosure.template(template),
        semconv.EXPRESSION_TEXT: disclosure.expression(evaluation.expression),
        semconv.CACHE_HIT: evaluation.cache_hit,
        semconv.RESULT_COUNT_ATTRIBUTE: evaluation.result_count,
        **_fallback(evaluation.obstacle),
        **bottleneck_attributes(evaluation.findings),
        semconv.MEMORY_RSS_DELTA: evaluation.rss_delta,
        semconv.MEMORY_RSS_PEAK: evaluation.rss_peak,
        semconv.MEMORY_RSS_GROWTH: evaluation.rss_growth,
        semconv.DATABASE_MEMORY_PEAK: evaluation.database_memory_peak,
        semconv.DATABASE_TEMP_PEAK: evaluation.database_temp_peak,
        semconv.SAMPLING_REASON: decision.reason,
        semconv.ADJUSTED_COUNT: decision.adjusted_count,
    }
    attributes: Attributes = {fact.name: value for fact, value in facts.items() if value is not None}
    if with_stages:
        for stage, active_ns in evaluation.stage_durations().items():
            attributes[_STAGE_DURATIONS[stage]] = active_ns / 1e9
    return {**dict(evaluation.dimensions), **attributes}


def _fallback(obstacle: tuple[int, int] | None) -> dict[semconv.Attribute, AttributeValue]:
    if obstacle is None:
        return {}
    start, end = obstacle
    return {semconv.FALLBACK_POSITION: start, semconv.FALLBACK_LENGTH: end - start}


def bottleneck_attributes(findings: tuple[Finding, ...]) -> dict[semconv.Attribute, AttributeValue]:
    """What a root span tells of findings, the gravest first."""
    if not findings:
        return {}
    return {
        semconv.BOTTLENECK_RULE: findings[0].rule,
        semconv.BOTTLENECK_RULES: tuple(finding.rule for finding in findings),
        semconv.BOTTLENECK_SEVERITY: findings[0].severity,
        semconv.BOTTLENECK_ADVICE: tuple(finding.advice for finding in findings),
    }


def _stage(stage: str, evaluation: Evaluation, disclosure: Disclosure) -> tuple[str, SpanKind, Attributes]:
    """Name, kind and attributes of a stage's span."""
    attributes: Attributes = {semconv.STAGE.name: stage}
    if stage == semconv.PARSE and evaluation.cache_hit is not None:
        attributes[semconv.CACHE_HIT.name] = evaluation.cache_hit
    if stage != semconv.SQL:
        return _STAGE_SPANS[stage], SpanKind.INTERNAL, attributes
    if evaluation.db_system is not None:
        attributes[semconv.DB_SYSTEM_NAME.name] = evaluation.db_system
    kind = SpanKind.INTERNAL if evaluation.db_system in _EMBEDDED else SpanKind.CLIENT
    if evaluation.statement_summary is None:
        return _STAGE_SPANS[stage], kind, attributes
    operation, collection = disclosure.statement(evaluation.statement_summary)
    summary = operation if collection is None else f"{operation} {collection}"
    attributes[semconv.DB_OPERATION_NAME.name] = operation
    attributes[semconv.DB_QUERY_SUMMARY.name] = summary
    if collection is not None:
        attributes[semconv.DB_COLLECTION_NAME.name] = collection
    return summary, kind, attributes

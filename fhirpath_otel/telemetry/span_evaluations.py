"""What ended spans tell of an evaluation: the notes that rules and samplers judge, made of attributes and times.

Spans may be anybody's, so nothing is expected of an attribute: one that is not what it should be is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.trace import StatusCode

from fhirpath_otel import semconv
from fhirpath_otel.telemetry import redaction
from fhirpath_otel.telemetry.evaluation import Evaluation
from fhirpath_otel.telemetry.redaction import Template

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext, Status

Key = tuple[int, int]

_STAGE_DURATIONS = {
    semconv.STAGE_DURATION_ATTRIBUTE.name.replace("{stage}", stage): stage for stage in semconv.STAGES
}
_FORCED = baggage.set_baggage(semconv.DEBUG_BAGGAGE, "true", Context())


class EndedSpan(Protocol):
    """What is read of a span."""

    @property
    def name(self) -> str: ...
    @property
    def context(self) -> Any: ...
    @property
    def parent(self) -> SpanContext | None: ...
    @property
    def attributes(self) -> Mapping[str, Any] | None: ...
    @property
    def status(self) -> Status: ...
    @property
    def start_time(self) -> int | None: ...
    @property
    def end_time(self) -> int | None: ...


def key_of(context: SpanContext) -> Key:
    """What tells a span from others."""
    return context.trace_id, context.span_id


def local_parent(parent: SpanContext | None) -> Key | None:
    """The parent's key, if it is a span of this process."""
    return None if parent is None or not parent.is_valid or parent.is_remote else key_of(parent)


def is_evaluation(attributes: Mapping[str, Any] | None) -> bool:
    """Whether a span with these attributes is the root of an evaluation."""
    if not attributes or semconv.STAGE.name in attributes:
        return False
    return semconv.EXPRESSION_HASH.name in attributes or semconv.ENGINE_NAME.name in attributes


def kept_reason(attributes: Mapping[str, Any] | None) -> str | None:
    """Why the trace is kept already, if a recorder has decided that."""
    return _text(attributes or {}, semconv.SAMPLING_REASON)


def duration_ns(span: EndedSpan) -> int:
    """How long a span took; 0 where its clock was set back."""
    return max(0, (span.end_time or 0) - (span.start_time or 0))


def error_type(span: EndedSpan) -> str | None:
    """The error that a span tells of, without any message."""
    return _error_type(span.attributes or {}, span.status)


def evaluation_of(root: EndedSpan, spans: Iterable[EndedSpan] = (), *, forced: bool = False) -> Evaluation:
    """The notes of the evaluation with this root; `spans` are those that may be its stages."""
    # A plain dictionary: each look into a span's own costs 1 µs.
    attributes = dict(root.attributes or {})
    evaluation = Evaluation(_FORCED if forced else None)
    evaluation.start_ns, evaluation.end_ns = root.start_time or 0, root.end_time or 0
    evaluation.duration_ns = duration_ns(root)
    evaluation.caller = root.parent if root.parent is not None and root.parent.is_valid else None
    evaluation.error_type = _error_type(attributes, root.status)
    evaluation.engine_name = _text(attributes, semconv.ENGINE_NAME) or semconv.OTHER
    evaluation.engine_version = _text(attributes, semconv.ENGINE_VERSION)
    evaluation.resource_type = _text(attributes, semconv.RESOURCE_TYPE)
    evaluation.execution_mode = _text(attributes, semconv.EXECUTION_MODE)
    evaluation.result_count = _number(attributes, semconv.RESULT_COUNT_ATTRIBUTE)
    hit = attributes.get(semconv.CACHE_HIT.name)
    evaluation.cache_hit = hit if isinstance(hit, bool) else None
    position = _number(attributes, semconv.FALLBACK_POSITION)
    if position is not None:
        length = _number(attributes, semconv.FALLBACK_LENGTH) or 0
        evaluation.obstacle = (position, position + length)
    shown = _text(attributes, semconv.EXPRESSION_TEMPLATE)
    digest = _text(attributes, semconv.EXPRESSION_HASH)
    if digest is not None:
        evaluation.template = Template(shown, digest)
    # The template stands for a text that is not told.
    evaluation.expression = _text(attributes, semconv.EXPRESSION_TEXT) or shown or digest
    evaluation.stages.extend(_stages(root, attributes, spans))
    evaluation.compiled_before = bool(hit) and len(evaluation.stages) < len(semconv.COMPILATION)
    return evaluation


def evaluations_in(
    spans: Sequence[EndedSpan], known: tuple[EndedSpan, Evaluation] | None = None
) -> list[Evaluation]:
    """Each evaluation whose root is among the spans; those that a recorder has judged already are not.

    `known` is one of the roots with its evaluation, if that was made already.
    """
    return [
        known[1] if known is not None and span is known[0] else evaluation_of(span, spans)
        for span in spans
        if is_evaluation(span.attributes) and kept_reason(span.attributes) is None
    ]


def _error_type(attributes: Mapping[str, Any], status: Status) -> str | None:
    told = _text(attributes, semconv.ERROR_TYPE)
    if told is not None:
        return redaction.error_type(told)
    return "_OTHER" if status.status_code is StatusCode.ERROR else None


def _stages(
    root: EndedSpan, attributes: Mapping[str, Any], spans: Iterable[EndedSpan]
) -> list[tuple[str, int, int]]:
    """The stages that the root's attributes tell, else those of its children."""
    told: list[tuple[str, int, int]] = []
    start_ns = root.start_time or 0
    for name, stage in _STAGE_DURATIONS.items():
        seconds = attributes.get(name)
        # The comparison also sorts out what is no number of seconds, such as NaN.
        if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < 1e9:
            told.append((stage, start_ns, start_ns + round(seconds * 1e9)))
    if told:
        return told
    own = key_of(root.context)
    for span in spans:
        if local_parent(span.parent) == own:
            name = _text(span.attributes or {}, semconv.STAGE) or ""
            if name in semconv.STAGES:
                told.append((name, span.start_time or 0, (span.start_time or 0) + duration_ns(span)))
    return told


def _text(attributes: Mapping[str, Any], attribute: semconv.Attribute) -> str | None:
    value = attributes.get(attribute.name)
    return value if isinstance(value, str) and value else None


def _number(attributes: Mapping[str, Any], attribute: semconv.Attribute) -> int | None:
    value = attributes.get(attribute.name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None

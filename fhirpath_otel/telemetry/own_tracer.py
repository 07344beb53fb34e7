"""Roots of our scope with a weight in their `tracestate`, and a trace id that fits the draw it was kept by.

The API alone can give a root neither. An SDK's tracer has a sampler and an id generator of its own, public attributes
that other scopes do not share: ours are wrapped around those. The host's sampler is still asked, and what it decides
stands. Where the tracer has no such attributes, spans are made without a weight.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.tracestate import RANGE, threshold_in, with_threshold

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext, SpanKind, Tracer, TracerProvider
    from opentelemetry.util.types import AttributeValue

_ALWAYS = (
    "AlwaysOnSampler",
    (
        "ParentBased{root:AlwaysOnSampler,remoteParentSampled:AlwaysOnSampler,"
        "remoteParentNotSampled:AlwaysOffSampler,localParentSampled:AlwaysOnSampler,"
        "localParentNotSampled:AlwaysOffSampler}"
    ),
)
"""The descriptions of samplers that keep each root, and each child of a sampled parent; the second is the default."""

_RATIO = "TraceIdRatio"
"""A host's ratio, however wrapped, also reads the end of the trace id, but keeps where it is small."""


class _Wish(threading.local):
    """What the span that this thread is starting shall get; empty at any other time."""

    threshold: int | None = None
    randomness: int | None = None
    trace_id: int | None = None
    span_id: int | None = None


_wish = _Wish()


class OwnTracer:
    """Our scope's tracer, of the given provider or of the global one, also when that is set later."""

    def __init__(self, version: str | None, provider: TracerProvider | None) -> None:
        self._version = version
        self._provider = provider
        self._tracer: Tracer | None = None

    def tracer(self) -> Tracer:
        """The tracer; once there is a provider, always the same."""
        if self._tracer is not None:
            return self._tracer
        provider = self._provider or trace.get_tracer_provider()
        found = provider.get_tracer(semconv.SCOPE, self._version, semconv.SCHEMA_URL)
        if not isinstance(provider, trace.ProxyTracerProvider):
            _wrap(found)
            self._tracer = found
        return found

    def ids(self) -> FittingIds | None:
        """What makes the ids of our spans, where an SDK lets us have a say in that."""
        ids = getattr(self.tracer(), "id_generator", None)
        return ids if isinstance(ids, FittingIds) else None


def start_root(
    tracer: Tracer,
    name: str,
    context: Context | None,
    attributes: dict[str, AttributeValue],
    start_time: int,
    *,
    threshold: int | None = None,
    randomness: int | None = None,
    identity: SpanContext | None = None,
) -> Span:
    """A root with this threshold in its `tracestate`, and this randomness at the end of a new trace's id.

    Without a threshold its `tracestate` is left to the host's sampler. A new trace gets the id of `identity`, if there
    is one.
    """
    _wish.threshold, _wish.randomness = threshold, randomness
    _wish.trace_id = None if identity is None else identity.trace_id
    try:
        return tracer.start_span(name, context, attributes=attributes, start_time=start_time)
    finally:
        _wish.threshold = _wish.randomness = _wish.trace_id = None


def start_stage(
    tracer: Tracer,
    name: str,
    context: Context,
    kind: SpanKind,
    attributes: dict[str, AttributeValue],
    *,
    start_time: int,
    identity: SpanContext | None,
) -> Span:
    """A stage's span, which is `identity` where a driver was told that already."""
    if identity is None:
        return tracer.start_span(name, context, kind, attributes, start_time=start_time)
    _wish.span_id = identity.span_id
    try:
        return tracer.start_span(name, context, kind, attributes, start_time=start_time)
    finally:
        _wish.span_id = None


def keeps_all(sampler: Any) -> bool:
    """Whether a host's sampler keeps every trace, as far as one can tell."""
    return hasattr(sampler, "get_description") and str(sampler.get_description()) in _ALWAYS


def _wrap(tracer: Any) -> None:
    """Puts ours around the tracer's sampler and id generator, once; providers share tracers of one scope."""
    sampler, ids = getattr(tracer, "sampler", None), getattr(tracer, "id_generator", None)
    if hasattr(sampler, "should_sample") and hasattr(ids, "generate_trace_id"):
        if not isinstance(sampler, _WeighingSampler):
            tracer.sampler = _WeighingSampler(sampler)
        if not isinstance(ids, FittingIds):
            tracer.id_generator = FittingIds(ids, tracer.sampler)


class _WeighingSampler:
    """The host's sampler, with our threshold in what it says of our roots.

    Where it may have dropped others without saying so by a threshold of its own, ours would claim too much: then there
    is none.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        description = str(inner.get_description())
        self._keeps_all = description in _ALWAYS
        self.reads_randomness_otherwise = _RATIO in description

    def should_sample(self, *args: Any, **named: Any) -> Any:
        result = self._inner.should_sample(*args, **named)
        threshold = _wish.threshold
        if threshold is None or not result.decision.is_sampled():
            return result
        inner = threshold_in(result.trace_state)
        if inner is None and not self._keeps_all:
            return result
        state = with_threshold(result.trace_state, max(threshold, inner or 0))
        return type(result)(result.decision, result.attributes, state)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class FittingIds:
    """The host's id generator, whose trace ids end in the randomness of our draw."""

    def __init__(self, inner: Any, sampler: _WeighingSampler) -> None:
        self._inner = inner
        self._sampler = sampler

    def premade(self, randomness: int | None = None) -> tuple[int, int, int | None]:
        """A trace id and a span id for later, and the randomness of the trace if a baseline may decide by it."""
        trace_id, span_id = self._inner.generate_trace_id(), self._inner.generate_span_id()
        if self._sampler.reads_randomness_otherwise:
            return trace_id, span_id, None
        if randomness is not None:
            trace_id += randomness - trace_id % RANGE
        return trace_id, span_id, trace_id % RANGE

    def generate_span_id(self) -> int:
        """The host's, unless a driver was told another one before."""
        wished = _wish.span_id
        made: int = self._inner.generate_span_id() if wished is None else wished
        return made

    def generate_trace_id(self) -> int:
        """The host's, unless a driver was told another one before, or it shall end in our draw."""
        if _wish.trace_id is not None:
            return _wish.trace_id
        made: int = self._inner.generate_trace_id()
        randomness = _wish.randomness
        if randomness is None or self._sampler.reads_randomness_otherwise:
            return made
        return made - made % RANGE + randomness

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

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
    from opentelemetry.trace import Span, Tracer, TracerProvider
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
    """What the root that this thread is starting shall get; empty at any other time."""

    threshold: int | None = None
    randomness: int | None = None


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


def start_root(
    tracer: Tracer,
    name: str,
    context: Context | None,
    attributes: dict[str, AttributeValue],
    start_time: int,
    *,
    threshold: int | None = None,
    randomness: int | None = None,
) -> Span:
    """A root with this threshold in its `tracestate`, and this randomness at the end of a new trace's id.

    Without a threshold its `tracestate` is left to the host's sampler.
    """
    _wish.threshold, _wish.randomness = threshold, randomness
    try:
        return tracer.start_span(name, context, attributes=attributes, start_time=start_time)
    finally:
        _wish.threshold = _wish.randomness = None


def _wrap(tracer: Any) -> None:
    """Puts ours around the tracer's sampler and id generator, once; providers share tracers of one scope."""
    sampler, ids = getattr(tracer, "sampler", None), getattr(tracer, "id_generator", None)
    if hasattr(sampler, "should_sample") and hasattr(ids, "generate_trace_id"):
        if not isinstance(sampler, _WeighingSampler):
            tracer.sampler = _WeighingSampler(sampler)
        if not isinstance(ids, _FittingIds):
            tracer.id_generator = _FittingIds(ids, tracer.sampler)


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


class _FittingIds:
    """The host's id generator, whose trace ids end in the randomness of our draw."""

    def __init__(self, inner: Any, sampler: _WeighingSampler) -> None:
        self._inner = inner
        self._sampler = sampler

    def generate_trace_id(self) -> int:
        made: int = self._inner.generate_trace_id()
        randomness = _wish.randomness
        if randomness is None or self._sampler.reads_randomness_otherwise:
            return made
        return made - made % RANGE + randomness

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

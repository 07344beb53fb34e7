"""The doors as they are used: with the policies, rules and settings of this process."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from fhirpath_otel import semconv, settings
from fhirpath_otel.analysis.span_analyser import SpanAnalyser
from fhirpath_otel.configuration import installed_policies, span_counts
from fhirpath_otel.doors.bottleneck_processor import BottleneckProcessor
from fhirpath_otel.doors.routing import Router
from fhirpath_otel.doors.tail_exporter import TailSamplingExporter
from fhirpath_otel.doors.tail_processor import TailSamplingProcessor
from fhirpath_otel.exporters import TRACES, UnusableExporter, make_otlp_exporter, requested
from fhirpath_otel.sampling.group_sampler import GroupSampler
from fhirpath_otel.sampling.policies import Reasons, TailSampler
from fhirpath_otel.telemetry.driver_context import DRIVERS
from fhirpath_otel.telemetry.own_tracer import keeps_all
from fhirpath_otel.telemetry.span_counts import SpanCounts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter

    from fhirpath_otel.sampling.group_state import Limits
    from fhirpath_otel.telemetry.span_evaluations import EndedSpan

NAME = "fhirpath_otel"
"""What asks for our exporter in `OTEL_TRACES_EXPORTER`."""

_logger = logging.getLogger("fhirpath_otel")


class TailSamplingSpanProcessor(TailSamplingProcessor):
    """Wraps the span processor that exports: `TailSamplingSpanProcessor(BatchSpanProcessor(OTLPSpanExporter()))`.

    Spans of evaluations (instrumentation scopes `scopes`) reach it if the policies keep their trace, all others at
    once, unchanged. `whose="all"` decides about all spans; by default the setting TAIL_SAMPLING says it. `limits`
    bounds what is held. With `hold_driver_spans` spans of database drivers come out below our SQL span, or not at all
    where the evaluation is not kept; switch it off where the provider also exports through other processors.
    """

    def __init__(
        self,
        wrapped: SpanProcessor,
        *,
        whose: str | None = None,
        scopes: Sequence[str] = semconv.EVALUATOR_SCOPES,
        limits: Limits | None = None,
        hold_driver_spans: bool = True,
    ) -> None:
        counts = span_counts()
        router = _router(counts, starts_seen=True, whose=whose, scopes=scopes, limits=limits)
        super().__init__(wrapped, router, counts, hold_driver_spans=hold_driver_spans)


class TailSamplingSpanExporter(TailSamplingExporter):
    """Wraps a span exporter; by default that for OTLP which the `OTEL_EXPORTER_OTLP_…` variables ask for.

    It is what `OTEL_TRACES_EXPORTER=fhirpath_otel` means. As for the processor otherwise; starts are not seen here, so
    baggage cannot force a trace.
    """

    def __init__(
        self,
        wrapped: SpanExporter | None = None,
        *,
        whose: str | None = None,
        scopes: Sequence[str] = semconv.EVALUATOR_SCOPES,
        limits: Limits | None = None,
    ) -> None:
        counts = span_counts()
        router = _router(counts, starts_seen=False, whose=whose, scopes=scopes, limits=limits)
        strips = settings.current().strip_foreign == "on"
        super().__init__(wrapped or _otlp(os.environ), router, counts, strip_foreign=strips, scopes=scopes)
        if wrapped is None and requested(TRACES, os.environ) == [NAME]:
            # The provider was made by the variables, and all of its spans leave here.
            DRIVERS.join(self)


class BottleneckSpanProcessor(BottleneckProcessor):
    """Wraps the span processor that exports, and puts onto roots what the bottleneck rules find in the spans below.

    Nothing is sampled. Without `wrapped`, beside other processors, it counts `fhirpath.bottleneck.findings` only.
    """

    def __init__(self, wrapped: SpanProcessor | None = None) -> None:
        super().__init__(wrapped, SpanAnalyser(), span_counts())


def _router(counts: SpanCounts, *, whose: str | None, **options: Any) -> Router:
    values = settings.current()
    # A sampler of its own: its weights stand for what this door judges, the recorder's for its evaluations.
    chosen = Reasons(values, own=installed_policies()).policies
    sampler = GroupSampler(
        TailSampler(chosen, values.max_traces_per_second),
        SpanAnalyser(),
        counts,
        _passed_a_sampler_that_keeps_all,
    )
    return Router(sampler, counts, whose=whose or values.tail_sampling, **options)


def _passed_a_sampler_that_keeps_all(span: EndedSpan) -> bool:
    """Whether the span is from the global provider, and that one's sampler keeps everything."""
    provider = trace.get_tracer_provider()
    resource = getattr(provider, "resource", None)
    return (
        resource is not None
        and getattr(span, "resource", None) is resource
        and keeps_all(getattr(provider, "sampler", None))
    )


def _otlp(environ: Mapping[str, str]) -> SpanExporter | None:
    try:
        exporter: SpanExporter = make_otlp_exporter(TRACES, environ)
    except UnusableExporter as problem:
        _logger.warning("traces are not exported: %s", problem)
        return None
    return exporter

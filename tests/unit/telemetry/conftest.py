"""A recorder over an SDK in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fhirpath_otel.telemetry.recorder import Decision, Recorder
from fhirpath_otel.telemetry.redaction import Disclosure

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.trace import ReadableSpan

    from fhirpath_otel.telemetry.recorder import Evaluation


@dataclass
class Telemetry:
    recorder: Recorder
    tracer_provider: TracerProvider
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    def spans(self) -> dict[str, ReadableSpan]:
        """The exported spans by name."""
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def points(self, name: str) -> list[Any]:
        """The data points of a metric so far; none for a metric that has no data."""
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def counts(self, name: str) -> dict[tuple[str, ...], float]:
        """The values of a counter by the values of its attributes."""
        return {tuple(point.attributes.values()): point.value for point in self.points(name)}


@pytest.fixture
def make_telemetry() -> Callable[..., Telemetry]:
    """Makes a recorder that keeps what `decide` says (everything by default), with more options as they are."""

    def make(
        decide: Callable[[Evaluation], Decision] | None = None, sampler: Any = None, **options: Any
    ) -> Telemetry:
        exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracer_provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
        options.setdefault("disclosure", Disclosure(is_type={"Patient", "Observation"}.__contains__))
        options.setdefault("watches_memory", False)
        recorder = Recorder(
            decide or (lambda _: Decision(True, "baseline", 4.0)),
            tracer_provider=tracer_provider,
            meter_provider=MeterProvider([reader], shutdown_on_exit=False),
            **options,
        )
        return Telemetry(recorder, tracer_provider, exporter, reader)

    return make


@pytest.fixture
def telemetry(make_telemetry: Callable[..., Telemetry]) -> Telemetry:
    """A recorder that keeps everything."""
    return make_telemetry()

"""Evaluates with the core alone, as in a host that has an OpenTelemetry SDK and none of our extras.

Usage: python tools/check_core.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import fhirpath_otel as fo


def main() -> None:
    """Raises AssertionError where an evaluation, its spans or its metrics are not as they should be."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([reader]))
    with tempfile.TemporaryDirectory() as folder, fo.connect(":memory:") as database:
        file = Path(folder, "Patient.ndjson")
        file.write_text('{"resourceType": "Patient", "id": "a", "birthDate": "2000-02-29"}\n')
        database.load(file)
        answer = database.evaluate("Patient.birthDate").fetchall()
    assert answer == [("a", "2000-02-29")], answer
    names = {span.name for span in spans.get_finished_spans()}
    assert "fhirpath evaluate Patient" in names, names
    assert reader.get_metrics_data() is not None
    print("The core evaluates, and is heard.")


if __name__ == "__main__":
    main()

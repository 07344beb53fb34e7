"""An evaluator of somebody else's: the plain SDK, and attributes by the names that are documented for everybody.

Says in which traces it was well, and in which it had what trouble, as JSON.
"""

from __future__ import annotations

import json
import sys
import time

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

HEALTHY = 1000
SECOND = 1_000_000_000
BREAKDOWN = {
    "healthy": {"fhirpath.stage.sql.duration": 0.1},
    "parse-dominates": {"fhirpath.stage.parse.duration": 0.08},
    "type-check-dominates": {"fhirpath.stage.type_check.duration": 0.08},
    "in-memory-fallback": {"fhirpath.stage.in_memory.duration": 0.08, "fhirpath.fallback.position": 12},
}


def evaluate(tracer, breakdown, seconds=0.1):
    """The trace id of an evaluation that took so long, with a child."""
    begin = time.time_ns()
    attributes = {"fhirpath.engine.name": "ward-engine", "fhirpath.resource.type": "Patient"}
    root = tracer.start_span("fhirpath evaluate Patient", start_time=begin, attributes=attributes | breakdown)
    child = tracer.start_span(
        "fhirpath parse",
        trace.set_span_in_context(root),
        start_time=begin,
        attributes={"fhirpath.stage": "parse"},
    )
    child.end(begin + SECOND // 1000)
    root.end(begin + int(seconds * SECOND))
    return f"{root.get_span_context().trace_id:032x}"


def main():
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), max_queue_size=10_000))
    tracer = provider.get_tracer("ward.engine", "7")
    healthy = [evaluate(tracer, BREAKDOWN["healthy"]) for _ in range(HEALTHY)]
    # So that whatever comes of those is decided no later than what comes of these.
    provider.force_flush()
    troubled = {name: evaluate(tracer, own) for name, own in BREAKDOWN.items() if name != "healthy"}
    provider.shutdown()
    json.dump({"healthy": healthy, "troubled": troubled}, sys.stdout)


if __name__ == "__main__":
    main()

"""How much memory telemetry takes: of a process with it, beyond that of one that does the same without.

Both import the same, and evaluate in 16 threads, by notes and by watched calls: the 200 expressions that metrics tell
apart, each of which has notes of its own waiting, and 10,000. With telemetry, all of it is recorded in stages and
exported over OTLP, every second. The evaluations do nothing, so that notes come as fast as they can. In a process of
its own all that `tracemalloc` finds that was allocated by this package and by OpenTelemetry is added up too.
"""

from __future__ import annotations

import gc
import multiprocessing
import statistics
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from benchmarks import harness
from benchmarks.growth import EXPRESSIONS, TOLD_APART, WAYS, in_threads, templates
from benchmarks.harness import Figure
from benchmarks.other_ways import NotesOnly
from benchmarks.works import make_recorder
from fhirpath_otel import semconv
from fhirpath_otel.evaluator.model import load_model

THREADS = 16
MEGABYTES = 32.0

_OURS = ("*/fhirpath_otel/*", "*/opentelemetry/*")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is run."""

    processes: int
    evaluations: int
    expressions: tuple[int, ...] = (TOLD_APART, EXPRESSIONS)


def resident_megabytes() -> float:
    """Of this process."""
    return float(psutil.Process().memory_info().rss) / 2**20


def figures(address: str, effort: Effort) -> Iterator[Figure]:
    """Beyond a process without, in the worst of some pairs, and what `tracemalloc` finds in a shorter run."""
    for expressions in effort.expressions:
        pairs = [
            (
                _in_process(address, expressions, effort.evaluations),
                _in_process(None, expressions, effort.evaluations),
            )
            for _ in range(effort.processes)
        ]
        worst = max(one - other for one, other in pairs)
        name = f"memory, {expressions:,} expressions"
        details: dict[str, harness.Detail] = {"threads": THREADS, "evaluations": effort.evaluations}
        yield Figure(
            f"{name}: without", statistics.median(other for _, other in pairs), "MB", details=details
        )
        yield harness.at_most(f"{name}: telemetry's, at most", worst, "MB", MEGABYTES)
    traced = _in_process(address, max(effort.expressions), effort.evaluations // 10, traced=True)
    yield harness.at_most(f"{name}: telemetry's objects, by tracemalloc", traced, "MB", MEGABYTES)


def _in_process(address: str | None, expressions: int, evaluations: int, *, traced: bool = False) -> float:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_grow, args=(there, address, expressions, evaluations, traced))
    process.start()
    there.close()
    try:
        return float(here.recv())
    finally:
        process.join()


def _grow(connection: Any, address: str | None, expressions: int, evaluations: int, traced: bool) -> None:
    found = templates(expressions)
    load_model()  # as whoever evaluates does
    if traced:
        # Four frames, as the caller of what allocates counts too.
        tracemalloc.start(4)
    recorder: Any = NotesOnly()
    if address is not None:
        recorder = make_recorder(semconv.STAGE_DETAIL, **_exporting(address))
    run = [make(recorder, template) for make in WAYS.values() for template in found]
    in_threads(run, evaluations, THREADS)()
    gc.collect()
    connection.send(_traced_megabytes() if traced else resident_megabytes())


def _exporting(address: str) -> dict[str, Any]:
    traces = TracerProvider(shutdown_on_exit=False)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{address}/v1/traces")))
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(f"{address}/v1/metrics"), export_interval_millis=1_000
    )
    return {
        "tracer_provider": traces,
        "meter_provider": MeterProvider([reader], shutdown_on_exit=False),
    }


def _traced_megabytes() -> float:
    filters = [tracemalloc.Filter(True, pattern, all_frames=True) for pattern in _OURS]
    found = tracemalloc.take_snapshot().filter_traces(filters)
    return sum(one.size for one in found.statistics("filename")) / 2**20

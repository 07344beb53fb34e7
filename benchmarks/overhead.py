"""What watching evaluations costs: `python -m benchmarks.overhead [--quick] [--json FILE]`.

Each work is run with and without telemetry in turn, in this process: a compiled fhirpathpy expression over one
resource, noted by hand as an instrumentor would; the pipeline over a small table; the pipeline over a larger one.
Without telemetry means that no recorder is there; the pipeline's own notes stay, as its result explains itself by
them. DuckDB has one thread. What is compared is CPU time of this process, exporting included.

Spans and metrics go out over OTLP/HTTP to a process of its own that throws them away. Spans are flushed within what is
measured: every five seconds as the SDK does by itself, and with plain SDK spans before its queue is full, as it would
drop them. Few blocks have a flush, so that it shows in the ratio of the totals only. The metrics are collected once at
the end: what that costs is a figure of its own, to be set against the minute between two collections of the SDK.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import duckdb
import fhirpathpy
from fhirpathpy.models import models
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import fhirpath_otel as fo
from benchmarks import harness
from benchmarks.evaluation import write_resources
from benchmarks.harness import Figure
from fhirpath_otel import semconv, settings
from fhirpath_otel.sampling.policies import Reasons, TailSampler
from fhirpath_otel.telemetry.recorder import Decision, Evaluation, Outcome, Recorder
from fhirpath_otel.telemetry.redaction import Template, template_from

COMPILED = "Patient.name.where(use='official').given.first()"
SMALL, SMALL_ROWS = "Patient.active", 20
LARGE, LARGE_ROWS = "Patient.name.given", 4_000
BLOCK_SECONDS = 0.005
FLUSH_SECONDS = 5.0
FLUSH_SPANS = 1_024  # half of the SDK's queue
TEMPLATES = tuple(template_from(f"Patient.name.where(use = ?).given[{number}]") for number in range(10_000))

Evaluate = Callable[[Any], None]


class _Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Takes what comes and forgets it."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def _serve(connection: Any) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    connection.send(server.server_port)
    server.serve_forever()


@contextlib.contextmanager
def sink() -> Iterator[str]:
    """The address of an OTLP/HTTP receiver in another process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.kill()
        process.join()


class Sdk:
    """An SDK that exports spans and metrics to an address; both are flushed by hand only."""

    def __init__(self, address: str) -> None:
        # A delay that never passes: the processor's thread must not export while the other side of a pair is timed.
        self.processor = BatchSpanProcessor(
            OTLPSpanExporter(f"{address}/v1/traces"), schedule_delay_millis=10**7, max_export_batch_size=512
        )
        self.traces = TracerProvider(shutdown_on_exit=False)
        self.traces.add_span_processor(self.processor)
        self.reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(f"{address}/v1/metrics"), export_interval_millis=float("inf")
        )
        self.metrics = MeterProvider([self.reader], shutdown_on_exit=False)


class NotesOnly:
    """In a recorder's place: takes the notes that the pipeline makes anyway, and does nothing with them."""

    _OUTCOME = Outcome(False, semconv.DROPPED, semconv.NO_SDK)

    def begin(self) -> Evaluation:
        """Empty notes."""
        return Evaluation()

    def expect(self, evaluation: Evaluation, known: object = None) -> None:
        """Nothing."""

    def finish(self, evaluation: Evaluation, error_type: str | None = None) -> Outcome:
        """Nothing."""
        evaluation.outcome = self._OUTCOME
        return self._OUTCOME


@dataclass(frozen=True, slots=True)
class Arm:
    """A way of watching: `recorder` is given to the work, `flush` called as often as the SDK would."""

    name: str
    recorder: Any
    flush: Callable[[], object] = bool
    spans_per_evaluation: int = 0
    bar_applies: bool = False


@dataclass(frozen=True, slots=True)
class Work:
    """Something that is evaluated under an arm's recorder, or with None without any."""

    name: str
    evaluate: Evaluate
    bar: float


def arms(sdk: Sdk) -> list[Arm]:
    """The ways of watching that there are; the governor's levels come with it."""
    values = settings.current()

    def recorder(decide: Callable[[Evaluation], Decision] | None = None, **providers: Any) -> Recorder:
        sampler = TailSampler(Reasons(values).policies, values.max_traces_per_second)
        return Recorder(decide or sampler, **providers)

    providers: dict[str, Any] = {"tracer_provider": sdk.traces, "meter_provider": sdk.metrics}
    return [
        Arm("alone again: the noise", None),
        Arm("no SDK, stages", recorder(), bar_applies=True),
        Arm("SDK, stages, tail-sampled", recorder(**providers), sdk.processor.force_flush, bar_applies=True),
        Arm(
            "plain SDK spans",
            recorder(lambda _: Decision(True, semconv.BASELINE), tracer_provider=sdk.traces),
            sdk.processor.force_flush,
            6,
        ),
    ]


def noted(recorder: Any, template: Template, evaluate: Callable[[], list[Any]]) -> None:
    """An evaluation of somebody else's engine as an instrumentor notes it: the root and five stages."""
    evaluation = recorder.begin()
    evaluation.template, evaluation.engine_name, evaluation.cache_hit = template, "fhirpathpy", True
    evaluation.execution_mode = semconv.IN_MEMORY
    note = evaluation.stages.append
    times = [evaluation.start_ns, *(perf_counter_ns() for _ in range(4))]
    evaluation.result_count = len(evaluate())
    times.append(perf_counter_ns())
    for number, stage in enumerate(semconv.STAGES):
        note((stage, times[number], times[number + 1]))
    recorder.finish(evaluation)


def works(folder: Path, small: fo.Database, large: fo.Database) -> list[Work]:
    """The works, cheapest first."""
    with (folder / "Patient.ndjson").open() as lines:
        patient = json.loads(next(lines))
    compiled = fhirpathpy.compile(COMPILED, models["r4"])

    def engine(recorder: Any) -> None:
        if recorder is None:
            compiled(patient)
        else:
            noted(recorder, TEMPLATES[0], lambda: compiled(patient))

    def pipeline(database: fo.Database, expression: str) -> Evaluate:
        def evaluate(recorder: Any) -> None:
            watching: Any = recorder or NotesOnly()
            database.recorder = watching
            database.evaluate(expression).fetchall()

        return evaluate

    return [
        Work("fhirpathpy", engine, 1.02),
        Work("pipeline, small", pipeline(small, SMALL), 1.02),
        Work("pipeline, large", pipeline(large, LARGE), 1.005),
    ]


class Block:
    """Evaluations in a row under one arm, with the flushes that fall due in them."""

    def __init__(self, work: Work, arm: Arm | None, evaluations: int) -> None:
        self._work = work
        self._arm = arm
        self._evaluations = evaluations
        self._flushed = time.monotonic()
        self._spans = 0

    def __call__(self) -> None:
        """Runs it."""
        arm, evaluate = self._arm, self._work.evaluate
        recorder = None if arm is None else arm.recorder
        for _ in range(self._evaluations):
            evaluate(recorder)
        if arm is None:
            return
        self._spans += arm.spans_per_evaluation * self._evaluations
        if self._spans > FLUSH_SPANS or time.monotonic() > self._flushed + FLUSH_SECONDS:
            arm.flush()
            self._flushed, self._spans = time.monotonic(), 0


def ratio_figures(work: Work, arm_list: list[Arm], pairs: int) -> Iterator[Figure]:
    """The work under each arm to the work alone."""
    alone = harness.median_seconds(lambda: work.evaluate(None), 30)
    evaluations = max(1, round(BLOCK_SECONDS / alone))
    bare = Block(work, None, evaluations)
    yield Figure(
        f"{work.name}: alone",
        statistics.median(harness.cpu_seconds(bare) for _ in range(9)) / evaluations * 1e6,
        "µs",
    )
    for arm in arm_list:
        found = harness.ratio(Block(work, arm, evaluations), bare, pairs)
        yield from found.figures(f"{work.name}: {arm.name}", work.bar if arm.bar_applies else None)


def nothing() -> list[Any]:
    """An evaluation that costs nothing."""
    return []


def evaluations_of_nothing(
    recorder: Any, count: int, threads: int = 1, templates: tuple[Template, ...] = TEMPLATES[:1]
) -> Callable[[], None]:
    """So many evaluations that do nothing, noted under this recorder by so many threads."""

    def run() -> None:
        for number in range(count // threads):
            noted(recorder, templates[number % len(templates)], nothing)

    def all_threads() -> None:
        workers = [threading.Thread(target=run) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return all_threads


def cost_figures(sdk: Sdk, count: int) -> Iterator[Figure]:
    """What an evaluation whose trace is dropped costs by itself."""
    drop = Decision(False, semconv.NOT_SELECTED)
    absent = Recorder(lambda _: drop)
    counted = Recorder(lambda _: drop, tracer_provider=sdk.traces, meter_provider=sdk.metrics)
    cases = {
        "bare notes: root and five stages": evaluations_of_nothing(NotesOnly(), count),
        "no SDK": evaluations_of_nothing(absent, count),
        "SDK, dropped": evaluations_of_nothing(counted, count),
        "SDK, dropped, 4 threads": evaluations_of_nothing(counted, count, 4),
        "SDK, dropped, 16 threads": evaluations_of_nothing(counted, count, 16),
        "SDK, dropped, 10,000 expressions": evaluations_of_nothing(counted, count, templates=TEMPLATES),
    }
    rounds = [{name: harness.cpu_seconds(run) for name, run in cases.items()} for _ in range(9)]
    bare, *others = cases
    yield Figure(bare, statistics.median(one[bare] for one in rounds) / count * 1e6, "µs")
    for name in others:
        beyond = statistics.median(one[name] - one[bare] for one in rounds) / count * 1e6
        title = f"{name}: beyond bare notes"
        yield harness.at_most(title, beyond, "µs", 1) if name == "no SDK" else Figure(title, beyond, "µs")
    collection = harness.cpu_seconds(sdk.reader.force_flush)
    yield Figure("collection and export of the metrics", collection * 1e3, "ms")


def main() -> None:
    """Measures and prints."""
    options = harness.arguments("What watching evaluations costs.")
    pairs, evaluations = (201, 8_000) if options.quick else (2_001, 40_000)
    with tempfile.TemporaryDirectory() as directory, sink() as address:
        folder = Path(directory)
        sdk = Sdk(address)
        with fo.connect(folder / "small.duckdb") as small, fo.connect(folder / "large.duckdb") as large:
            for database, count in ((large, LARGE_ROWS), (small, SMALL_ROWS)):
                write_resources(folder, count)
                database.load(folder / "Patient.ndjson")
                database.cursor().execute("SET threads = 1")
            figures = [
                figure
                for work in works(folder, small, large)
                for figure in ratio_figures(work, arms(sdk), pairs)
            ]
        figures += cost_figures(sdk, evaluations)
        sdk.traces.shutdown()
        sdk.metrics.shutdown()
    harness.report(f"Overhead, {pairs} pairs each, DuckDB {duckdb.__version__}", figures, options.json)


if __name__ == "__main__":
    main()

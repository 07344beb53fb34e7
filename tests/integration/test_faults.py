"""Whatever becomes of telemetry, evaluations go on as they are; what is lost is counted to the span, and said once.

Each case is a process of its own, since exits belong to it: that the process ends at all is the bound that is tested,
the time limit of `run_script` is only there for when it does not.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from fhirpath_otel import semconv
from tests.integration.faults import COLLECTORS

needs_local = pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry.exporter.otlp.json") is None,
    reason="needs the extra `local`, which needs SDK 1.43",
)

EVALUATE = """
import json, logging, os, pathlib, sys, tempfile
logging.basicConfig(format="%(name)s: %(message)s")
import fhirpath_otel as fo
from fhirpath_otel import configuration, semconv
from opentelemetry import trace

fo.configure(local_traces={local_traces})
try:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    memory = InMemorySpanExporter()
    trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(memory))
except AttributeError:
    memory = None
patients = [dict(resourceType="Patient", id=f"p{{n}}", name=[dict(family=f"Family {{n}}")]) for n in range(5)]
file = pathlib.Path(tempfile.mkdtemp(), "Patient.ndjson")
file.write_text("".join(json.dumps(patient) + chr(10) for patient in patients))
answers = []
with fo.connect(":memory:") as database:
    database.load(file)
    for expression in ("Patient.name.family", "Patient.id", "Patient.name.family.upper()") * {times}:
        with database.evaluate(expression) as result:
            answers.append(result.fetchall())
print(json.dumps(dict(answers=answers, spans=len(memory.get_finished_spans()) if memory else 0)))
"""
PLAIN = EVALUATE.format(local_traces=False, times=2)

UNCOVERED = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}


def evaluated(done):
    """What the script answered, and what our own logger said."""
    told = json.loads(done.stdout.splitlines()[0])
    said = [line for line in done.stderr.splitlines() if line.startswith("fhirpath_otel: ")]
    assert "Traceback" not in done.stderr
    return told["answers"], told["spans"], said


@pytest.fixture(scope="module")
def undisturbed():
    """The answers without telemetry."""
    answers = {}

    def answer(run_script, script=PLAIN):
        if script not in answers:
            told, spans, said = evaluated(run_script(script))
            assert (spans, said) == (0, [])
            answers[script] = told
        return answers[script]

    return answer


@pytest.mark.parametrize(("fault", "protocol"), COLLECTORS)
def test_a_broken_collector_costs_the_spans_and_nothing_else(
    receivers, run_script, undisturbed, fault, protocol
):
    with COLLECTORS[fault, protocol]() as endpoint, receivers["grpc"]() as metrics:
        done = run_script(
            PLAIN,
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=endpoint,
            OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_TRACES_TIMEOUT="1",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=metrics.endpoint,
            OTEL_EXPORTER_OTLP_METRICS_PROTOCOL="grpc",
        )
    answers, spans, said = evaluated(done)
    assert answers == undisturbed(run_script)
    assert spans > 0
    lost = metrics.sums(semconv.LOST.name)
    assert {what for what, _ in lost} == {"span"}
    assert {reason for _, reason in lost} <= {"export_failed", "shut_down"}
    assert sum(lost.values()) == spans
    assert len(said) == 1, done.stderr


@pytest.mark.parametrize(("fault", "protocol"), COLLECTORS)
def test_a_broken_collector_of_metrics_keeps_no_process_alive(run_script, undisturbed, fault, protocol):
    with COLLECTORS[fault, protocol]() as endpoint:
        done = run_script(
            PLAIN + "fo.shutdown(1)",
            OTEL_METRICS_EXPORTER="otlp",
            OTEL_TRACES_EXPORTER="none",
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_TIMEOUT="1",
        )
    answers, _, said = evaluated(done)
    assert answers == undisturbed(run_script)
    assert len(said) <= 1, done.stderr


RAISE = """
from opentelemetry.sdk.trace.export import ConsoleSpanExporter
def export(self, spans):
    raise ConnectionError("Kanarienvogel")
ConsoleSpanExporter.export = export
"""


def test_an_exporter_that_raises_is_said_once_without_its_message(receivers, run_script, undisturbed):
    with receivers["grpc"]() as metrics:
        done = run_script(
            RAISE + PLAIN,
            OTEL_TRACES_EXPORTER="console",
            OTEL_BSP_SCHEDULE_DELAY="1",  # so that it raises more than once
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=metrics.endpoint,
        )
    answers, spans, said = evaluated(done)
    assert answers == undisturbed(run_script)
    assert metrics.sums(semconv.LOST.name) == {("span", "export_failed"): spans}
    assert len(said) == 1
    assert "ConnectionError" in said[0]
    assert "Kanarienvogel" not in done.stderr


HANG = """
import threading
from opentelemetry.sdk.trace.export import ConsoleSpanExporter
held, release = threading.Event(), threading.Event()
def export(self, spans):
    held.set()
    release.wait()
ConsoleSpanExporter.export = export
"""


def test_evaluations_go_on_while_an_exporter_hangs_and_the_process_ends(receivers, run_script, undisturbed):
    script = HANG + PLAIN.replace(
        "answers = []", "with trace.get_tracer('t').start_as_current_span('first'): pass\nanswers = []"
    )
    script = script.replace(
        "    for expression", "    trace_flushed = fo.flush(0.5)\n    held.wait()\n    for expression"
    )
    with receivers["grpc"]() as metrics:
        done = run_script(
            script + "print(trace_flushed, held.is_set(), release.is_set())",
            OTEL_TRACES_EXPORTER="console",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=metrics.endpoint,
        )
    answers, spans, said = evaluated(done)
    assert answers == undisturbed(run_script)
    assert done.stdout.splitlines()[1] == "False True False", "it hung all the time"
    assert metrics.sums(semconv.LOST.name) == {("span", "shut_down"): spans}
    assert said == [f"fhirpath_otel: {spans} spans could not be exported in time; they are lost"]


def test_more_spans_than_the_queue_holds_are_counted_while_the_exporter_hangs(
    receivers, run_script, undisturbed
):
    script = EVALUATE.format(local_traces=False, times=4)
    with receivers["grpc"]() as metrics:
        done = run_script(
            HANG + script,
            OTEL_TRACES_EXPORTER="console",
            OTEL_BSP_MAX_QUEUE_SIZE="10",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2",
            OTEL_PYTHON_FHIRPATH_BASELINE_RATE="1",
            OTEL_PYTHON_FHIRPATH_MAX_TRACES_PER_SECOND="1000",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=metrics.endpoint,
        )
    answers, spans, said = evaluated(done)
    assert answers == undisturbed(run_script, script)
    lost = metrics.sums(semconv.LOST.name)
    assert set(lost) == {("span", "queue_full"), ("span", "shut_down")}
    assert lost["span", "shut_down"] <= 12
    assert sum(lost.values()) == spans
    assert len(said) == 2, "one line for each kind of loss"


FULL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))
"""


@needs_local
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a file's size is tried on Linux")
def test_a_full_disk_costs_the_spans_of_the_local_file_and_leaves_whole_lines(
    receivers, run_script, undisturbed, tmp_path
):
    script = EVALUATE.format(local_traces=True, times=2)
    with receivers["grpc"]() as metrics:
        done = run_script(
            FULL_DISK + script,
            OTEL_BSP_SCHEDULE_DELAY="1",
            OTEL_PYTHON_FHIRPATH_BASELINE_RATE="1",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=metrics.endpoint,
            **UNCOVERED,  # its file would not fit either
        )
    answers, spans, said = evaluated(done)
    assert answers == undisturbed(run_script, EVALUATE.format(local_traces=False, times=2))
    written = 0
    for file in (tmp_path / "state").rglob("*.otlp.jsonl"):
        for line in file.read_text().splitlines():
            batch = json.loads(line)
            written += sum(
                len(scope["spans"]) for item in batch["resourceSpans"] for scope in item["scopeSpans"]
            )
    lost = metrics.sums(semconv.LOST.name)
    assert set(lost) == {("span", "file_error")}
    assert written + lost["span", "file_error"] == spans
    assert len(said) == 1
    assert "(No space left on device)" in said[0]


@pytest.fixture
def unwritable(tmp_path):
    """A directory that this user cannot write to; for root, who can, one where nobody can."""
    if os.geteuid() == 0:
        if not Path("/proc/self").is_dir():
            pytest.skip("root can write everywhere, and there is no /proc")
        return Path("/proc/self")
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    return folder


@needs_local
@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions are tried where users have numbers")
def test_a_directory_that_cannot_be_written_costs_the_spans_of_the_local_file(
    receivers, run_script, undisturbed, unwritable
):
    with receivers["grpc"]() as metrics:
        done = run_script(
            EVALUATE.format(local_traces=None, times=2),
            OTEL_PYTHON_FHIRPATH_TRACES_DIRECTORY=str(unwritable / "traces"),
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=metrics.endpoint,
        )
    answers, spans, said = evaluated(done)
    assert answers == undisturbed(run_script)
    assert spans > 0
    assert metrics.sums(semconv.LOST.name) == {("span", "file_error"): spans}
    assert len(said) == 1

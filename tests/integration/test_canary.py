"""Unique markers in everything a user can write: none may come out at any exporter, in any log, in any file."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.local_files import read_traces
from tests.integration import canary

DETAILS = (*getattr(semconv, "DETAILS", ("stages",)), "auto")


def installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


WRITES_FILES = installed("opentelemetry.exporter.otlp.json")  # needs SDK 1.43
PROMETHEUS = installed("opentelemetry.exporter.prometheus")


@dataclass
class Emitted:
    """All that came out of a process, by place."""

    places: dict[str, bytes]
    outcomes: list[str]
    received: Any
    traces: list[Any]

    def found_at(self, marker: str = "") -> set[str]:
        """The places where the marker stands, or any of them."""
        text = (canary.MARKER + marker).lower().encode()
        return {place for place, content in self.places.items() if text in content.lower()}


@pytest.fixture
def emit(receivers, run_script, tmp_path):
    """Runs the canary under these variables."""

    def run(protocol: str = "grpc", **variables: str) -> Emitted:
        with receivers[protocol]() as received:
            done = run_script(
                canary.SCRIPT,
                FOLDER=str(tmp_path),
                LOCAL_TRACES=str(WRITES_FILES),
                OTEL_TRACES_EXPORTER="otlp,console",
                OTEL_METRICS_EXPORTER="otlp,console" + ",prometheus" * PROMETHEUS,
                OTEL_EXPORTER_PROMETHEUS_PORT="0",
                OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint,
                OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
                OTEL_PYTHON_FHIRPATH_MAX_TRACES_PER_SECOND="1000",
                OTEL_PYTHON_FHIRPATH_BASELINE_RATE="1",
                OTEL_PYTHON_FHIRPATH_OVERHEAD_BUDGET="1",
                **variables,
            )
        output, _, outcomes = done.stdout.strip().rpartition("\n")
        places = {
            "spans": b"".join(request.SerializeToString() for request in received.traces),
            "metrics": b"".join(request.SerializeToString() for request in received.metrics),
            "headers": repr(received.headers).encode(),
            "output": output.encode(),
            "console": done.stderr.encode(),
            "log": (tmp_path / "log.txt").read_bytes(),
        }
        traces = []
        if WRITES_FILES:
            files = list((tmp_path / "state").rglob("*.otlp.jsonl"))
            places["file"] = b"".join(file.read_bytes() for file in files)
            traces = [span for file in files for span in read_traces(file)]
        if PROMETHEUS:
            places["prometheus"] = (tmp_path / "prometheus.txt").read_bytes()
        return Emitted(places, json.loads(outcomes), received, traces)

    return run


def holds_enough_to_search(emitted: Emitted) -> None:
    """A canary that meets nobody proves nothing."""
    kinds = set(emitted.outcomes)
    assert kinds >= {"list", "ExpressionSyntaxError", "ExpressionTypeError", "EvaluationError"}
    assert kinds >= {"DatabaseError", "UsageError", "KeyboardInterrupt", "ConversionException", "LoadError"}
    metrics = emitted.received.metric_names()
    assert metrics >= {semconv.EVALUATION_DURATION.name, semconv.LOST.name}
    if PROMETHEUS:
        assert b"fhirpath_evaluation_duration_seconds" in emitted.places["prometheus"]
    assert b"fhirpath.evaluation.duration" in emitted.places["console"]
    assert b"telemetry of an evaluation was lost (ValueError)" in emitted.places["log"]
    assert b"could not be exported (ValueError)" in emitted.places["log"]


@pytest.mark.parametrize(
    ("protocol", "capture", "detail"),
    [
        ("http/protobuf", "template", "auto"),
        ("grpc", "hash", "auto"),
        *(("grpc", "template", detail) for detail in DETAILS),
    ],
)
def test_no_marker_comes_out_anywhere(emit, protocol, capture, detail):
    emitted = emit(
        protocol,
        OTEL_PYTHON_FHIRPATH_CAPTURE_EXPRESSION=capture,
        OTEL_PYTHON_FHIRPATH_DETAIL=detail,
    )
    if detail != "off":
        holds_enough_to_search(emitted)
    assert emitted.found_at() == set()


def test_a_leak_would_be_found_at_every_place(emit):
    emitted = emit(PLANT="yes", OTEL_EXPORTER_OTLP_HEADERS="x-leak=Kanarienvogel")
    assert emitted.found_at() == set(emitted.places)


def attributes(emitted: Emitted) -> set[tuple[str, str]]:
    """What stands on the spans that were received: the first two words of a span's name, and names of attributes."""
    return {
        (" ".join(span.name.split()[:2]), item.key)
        for request in emitted.received.traces
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        for item in span.attributes
    }


def test_the_setting_full_adds_exactly_the_expression(emit, tmp_path):
    usual = emit(OTEL_PYTHON_FHIRPATH_DETAIL="stages")
    for path in [*tmp_path.glob("*.duckdb*"), tmp_path / "log.txt", *(tmp_path / "state").rglob("*.jsonl")]:
        path.unlink()
    full = emit(OTEL_PYTHON_FHIRPATH_DETAIL="stages", OTEL_PYTHON_FHIRPATH_CAPTURE_EXPRESSION="full")
    assert usual.found_at() == set()
    assert full.found_at() == {"spans", "console", *(["file"] if WRITES_FILES else [])}
    # Which bottlenecks there are, and what took memory, is not the same in two runs.
    added = {
        (name, key)
        for name, key in attributes(full) - attributes(usual)
        if not any(word in key for word in ("bottleneck", "memory"))
    }
    assert added == {("fhirpath evaluate", semconv.EXPRESSION_TEXT.name)}
    if WRITES_FILES:
        texts = {span.attributes.get(semconv.EXPRESSION_TEXT.name) for span in full.traces} - {None}
        assert texts == {*canary.EXPRESSIONS, *canary.EVALUATED, "Patient.name"}
        told = [span for span in full.traces if semconv.EXPRESSION_TEXT.name in span.attributes]
        assert {span.name.split()[1] for span in told} == {"evaluate"}
    # The markers that are in no expression: data, names of files and types, messages, credentials.
    in_none = [f"-{number}" for number in range(17, 60) if f"-{number}" not in str(canary.EVALUATED)] + [
        "17",
        "18",
        "50",
        "53",
        "58",
    ]
    assert [marker for marker in in_none if full.found_at(marker)] == []


COMMANDS = {
    "syntax": ["evaluate", "{database}", "Patient.name.where(family = 'x"],
    "type": ["evaluate", "{database}", "Patient.nam"],
    "data": ["evaluate", "{database}", "Patient.name.given.single()"],
    "memory": ["evaluate", "{database}", "Patient.name.family.select('x'.toInteger() + $this.toDate())"],
    "password": ["evaluate", "postgresql://user:Kanarienvogel-51@localhost/x", "Patient.name"],
    "scheme": ["evaluate", "mysql://user:Kanarienvogel-51@localhost/x", "Patient.name"],
    "no table": ["evaluate", "{database}", "Observation.value"],
    "broken file": ["load", "{database}", "{broken}"],
}


@pytest.mark.parametrize("case", COMMANDS)
def test_errors_of_the_command_line_hold_no_data_and_no_credentials(run_script, receivers, tmp_path, case):
    """The user's own terminal shows the expression and the names of files, and which resource it is about."""
    names = {"database": tmp_path / "clinic.duckdb", "broken": tmp_path / "broken.ndjson"}
    name = {"family": "Kanarienvogel-22", "given": ["Kanarienvogel-23", "Kanarienvogel-24"]}
    patient = {"resourceType": "Patient", "id": "p1", "name": [name], "birthDate": "Kanarienvogel-26"}
    (tmp_path / "Patient.ndjson").write_text(json.dumps(patient) + "\n")
    names["broken"].write_text(
        '{"resourceType": "Patient", "id": "Kanarienvogel-25", "name": Kanarienvogel-26}'
    )
    script = (
        "import fhirpath_otel as fo, sys\n"
        f"with fo.connect({str(names['database'])!r}) as d: d.load({str(tmp_path / 'Patient.ndjson')!r})\n"
        "from fhirpath_otel.__main__ import main\n"
        f"print('exit code', main({[item.format(**names) for item in COMMANDS[case]]!r}), file=sys.stderr)\n"
    )
    with receivers["grpc"]() as received:
        done: subprocess.CompletedProcess[str] = run_script(
            script, OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint
        )
    assert "exit code 1" in done.stderr or "exit code 2" in done.stderr, done.stderr
    assert canary.MARKER.lower() not in (done.stderr + done.stdout).lower()
    for request in (*received.traces, *received.metrics):
        assert canary.MARKER.lower().encode() not in request.SerializeToString().lower()

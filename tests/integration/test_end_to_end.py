"""The whole line as a user runs it: real resources, the command line, and what a real OTLP receiver gets of it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from itertools import pairwise

import pytest

from fhirpath_otel import population, semconv

CANARY = "Kanarienvogel"
WRITES_FILES = importlib.util.find_spec("opentelemetry.exporter.otlp.json") is not None  # needs SDK 1.43

COMMAND = """
import sys
from itertools import pairwise
from fhirpath_otel.__main__ import main
sys.argv = ["fhirpath-otel", *{arguments!r}]
try:
    code = main()
except SystemExit as ended:
    code = ended.code
print("exit status", code or 0, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A database of a small population, in which one patient has a name that must not leave the machine."""
    folder = tmp_path_factory.mktemp("clinic")
    paths = population.write(folder, 30)
    first = json.loads(paths["Patient"].read_text().splitlines()[0])
    first |= {"id": f"{CANARY}-id", "name": [{"family": f"{CANARY}-family", "given": [f"{CANARY}-given"]}]}
    with paths["Patient"].open("a") as file:
        file.write(json.dumps(first) + "\n")
    path = folder / "clinic.duckdb"
    script = f"import fhirpath_otel as fo\nwith fo.connect({str(path)!r}) as d: d.load({str(folder)!r})"
    subprocess.run([sys.executable, "-c", script], check=True)
    return str(path)


@pytest.fixture
def evaluate(run_script, database):
    """Runs `fhirpath-otel evaluate` over the database against a receiver."""

    def run(received, *arguments: str, protocol: str = "grpc") -> subprocess.CompletedProcess[str]:
        return run_script(
            COMMAND.format(arguments=["evaluate", database, *arguments]),
            OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_SERVICE_NAME="clinic",
        )

    return run


def attributes(span) -> dict:
    found = {}
    for item in span.attributes:
        kind = item.value.WhichOneof("value")
        found[item.key] = getattr(item.value, kind)
    return found


def test_every_stage_of_an_evaluation_in_sql_arrives_as_a_span(receivers, evaluate):
    with receivers["grpc"]() as received:
        done = evaluate(received, "Patient.name.where(use = 'official').family", "--format", "ndjson")
    assert "exit status 0" in done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    spans = received.spans()
    root = spans["fhirpath evaluate Patient"]
    assert set(spans) == {
        root.name,
        "fhirpath parse",
        "fhirpath type_check",
        "fhirpath collection",
        "SELECT Patient",
    }
    for name, span in spans.items():
        assert span.trace_id == root.trace_id
        assert name == root.name or span.parent_span_id == root.span_id
        assert root.start_time_unix_nano <= span.start_time_unix_nano < span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano
    said = attributes(root)
    assert said[semconv.EXPRESSION_TEMPLATE.name] == "Patient.name.where(use = ?).family"
    assert said[semconv.RESULT_COUNT_ATTRIBUTE.name] == len(rows) > 0
    assert said[semconv.EXECUTION_MODE.name] == semconv.PUSHDOWN
    assert root.trace_id.hex() in done.stderr


def test_stages_follow_each_other_and_fill_the_evaluation(receivers, evaluate):
    with receivers["grpc"]() as received:
        evaluate(received, "Observation.value.ofType(Quantity).value")
    spans = received.spans()
    order = ["fhirpath parse", "fhirpath type_check", "fhirpath collection", "SELECT Observation"]
    for before, after in pairwise(order):
        assert spans[before].end_time_unix_nano <= spans[after].start_time_unix_nano


def test_an_evaluation_in_memory_says_so(receivers, evaluate):
    with receivers["http/protobuf"]() as received:
        done = evaluate(received, "Patient.name.first().family.upper()", protocol="http/protobuf")
    assert "exit status 0" in done.stderr
    spans = received.spans()
    assert {"SELECT Patient", "fhirpath in_memory"} <= set(spans)
    said = attributes(spans["fhirpath evaluate Patient"])
    assert said[semconv.EXECUTION_MODE.name] == semconv.IN_MEMORY
    assert said[semconv.ENGINE_NAME.name] == "fhirpathpy"


def test_several_expressions_share_one_trace(receivers, evaluate):
    with receivers["grpc"]() as received:
        evaluate(received, "Patient.name.given", "Encounter.period.start", "Condition.code.coding.code")
    every = [
        span
        for request in received.traces
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    roots = [span for span in every if span.name.startswith("fhirpath evaluate")]
    assert len(roots) == 3
    assert len({span.trace_id for span in every}) == 1


@pytest.mark.parametrize(
    "expression",
    [
        f"Patient.name.where(family = '{CANARY}-family').given",
        f"Patient.name.given.where($this.startsWith('{CANARY}'))",
        f"Patient.where(id = '{CANARY}-id').name",
        f"Patient.name /* {CANARY} */ .`given`",
        f"Patient.name.where(family = '{CANARY}",
        f"Patient.{CANARY.lower()}",
        "Patient.name.given.single()",
        f"Patient.name.family.single() = '{CANARY}'",
    ],
)
def test_no_value_reaches_the_receiver_the_log_or_the_files(receivers, evaluate, tmp_path, expression):
    with receivers["grpc"]() as received:
        evaluate(received, expression, "--format", "csv")
    assert received.traces, "nothing to search"
    assert received.metrics, "nothing to search"
    for request in (*received.traces, *received.metrics):
        assert CANARY.lower().encode() not in request.SerializeToString().lower()
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert files or not WRITES_FILES, "nothing to search"
    for path in files:
        assert CANARY.lower().encode() not in path.read_bytes().lower()

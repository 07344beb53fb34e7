"""Unique markers in everything a user can write: none may come out at any exporter, in any log, in any file."""

from __future__ import annotations

import pytest

from fhirpath_otel import semconv

CANARY = "Kanarienvogel"

EVALUATIONS = """
import logging
logging.basicConfig(level=logging.DEBUG)
from fhirpath_otel import configuration
from fhirpath_otel.errors import ExpressionError
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.parser import parse
from fhirpath_otel.evaluator.template import expression_template
from fhirpath_otel.telemetry.operators import OperatorTime

EXPRESSIONS = [
    "Patient.name.where(family = 'Kanarienvogel-1').given",
    "Patient.name /* Kanarienvogel-2 */ // Kanarienvogel-3",
    "Patient.`Kanarienvogel-4`.name.where(`Kanarienvogel-5` = %`Kanarienvogel-6`)",
    "Patient.kanarienvogel7.kanarienvogel8(%kanarienvogel9, %'Kanarienvogel-10')",
    "Patient.name.where(family = 'Kanarienvogel-11",
    "Patient.name is Kanarienvogel12.Kanarienvogel13",
    "Kanarienvogel14.name | 4 'Kanarienvogel-15'",
    "Patient..name 'Kanarienvogel-16'",
    "",
]

configuration.configure(local_traces=True)
recorder = configuration.recorder()

def evaluate(expression, error_type):
    evaluation = recorder.begin()
    evaluation.expression = expression
    evaluation.resource_type = "Kanarienvogel17"
    evaluation.db_system, evaluation.statement_summary = "duckdb", "SELECT Kanarienvogel18"
    evaluation.execution_mode, evaluation.result_count, evaluation.cache_hit = "pushdown", 1, False
    evaluation.stages += [("parse", 0, 1), ("sql", 1, 2), ("in_memory", 2, 10**8)]
    evaluation.operators = (OperatorTime("Kanarienvogel-22", 0, 9, 1, 1, 1, 1), OperatorTime("where", 1, 1, 1, 1, 1, 1))
    evaluation.start_ns, evaluation.obstacle = evaluation.start_ns - 10**8, (8, 20)
    try:
        evaluation.template = expression_template(parse(expression), load_model())
    except ExpressionError as error:
        error_type = str(error)
    recorder.finish(evaluation, error_type)

for expression in EXPRESSIONS:
    for error_type in (None, "Could not convert 'Kanarienvogel-19'", "ValueError"):
        evaluate(expression, error_type)

# Our own failure: a stage that nobody knows, and a sampler that raises.
evaluation = recorder.begin()
evaluation.stages.append(("Kanarienvogel-20", 0, 1))
recorder.finish(evaluation)
def fail(_): raise ValueError("Kanarienvogel-21")
recorder._decide = fail
evaluate("Patient.name", None)
print(configuration.flush())
"""


@pytest.fixture
def places(receivers, run_script, tmp_path):
    """Evaluates under these variables; everything that came out, by place."""

    def evaluate(protocol, **variables):
        with receivers[protocol]() as received:
            done = run_script(
                EVALUATIONS,
                OTEL_TRACES_EXPORTER="otlp,console",
                OTEL_METRICS_EXPORTER="otlp,console",
                OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint,
                OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
                **variables,
            )
        [file] = (tmp_path / "state").rglob("*.otlp.jsonl")
        assert {"fhirpath where", "fhirpath ?"} <= set(received.spans())
        assert semconv.FINDINGS.name in received.metric_names()
        assert semconv.EXPRESSION_INFO.name in received.metric_names() or "hash" in variables.values()
        return {
            "spans": b"".join(request.SerializeToString() for request in received.traces),
            "metrics": b"".join(request.SerializeToString() for request in received.metrics),
            "headers": repr(received.headers).encode(),
            "file": file.read_bytes(),
            "output": done.stdout.encode(),
            "log": done.stderr.encode(),
        }

    return evaluate


def found(content: bytes, marker: str = "") -> bool:
    return (CANARY + marker).lower().encode() in content.lower()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("capture", ["template", "hash"])
def test_no_marker_comes_out_anywhere(places, protocol, capture):
    everywhere = places(protocol, OTEL_PYTHON_FHIRPATH_CAPTURE_EXPRESSION=capture)
    assert [place for place, content in everywhere.items() if found(content)] == []


def test_the_setting_full_adds_the_expression_to_spans_and_nothing_else(places):
    everywhere = places("grpc", OTEL_PYTHON_FHIRPATH_CAPTURE_EXPRESSION="full")
    assert {place for place, content in everywhere.items() if found(content)} == {"spans", "file", "log"}
    # The markers that are in no expression: names of types, messages, stages.
    for marker in ("17", "18", "-19", "-20", "-21", "-22"):
        assert not any(found(content, marker) for content in everywhere.values())

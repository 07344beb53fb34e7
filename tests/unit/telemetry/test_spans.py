"""What a kept evaluation looks like as spans."""

from __future__ import annotations

import pytest
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.finding import Finding
from fhirpath_otel.telemetry.operators import OperatorTime
from fhirpath_otel.telemetry.redaction import Disclosure, Template

TEMPLATE = Template("Patient.name.where(use = ?).family", "0123456789abcdef")
IS_TYPE = {"Patient", "Observation"}.__contains__


def finish(telemetry, error_type=None, stages=("parse", "type_check", "collection", "sql"), **facts):
    """Finishes an evaluation whose stages last 1 µs each, one after the other, beginning after 1 µs."""
    evaluation = telemetry.recorder.begin()
    for number, stage in enumerate(stages, start=1):
        begin = evaluation.start_ns + number * 1_000
        evaluation.stages.append((stage, begin, begin + 1_000))
    for name, value in {"resource_type": "Patient", "template": TEMPLATE, **facts}.items():
        setattr(evaluation, name, value)
    telemetry.recorder.finish(evaluation, error_type)
    return evaluation


def test_stages_are_children_with_their_real_boundaries(telemetry):
    evaluation = finish(telemetry, db_system="duckdb", statement_summary="SELECT Patient")
    spans = telemetry.spans()
    assert list(spans) == [
        "fhirpath parse",
        "fhirpath type_check",
        "fhirpath collection",
        "SELECT Patient",
        "fhirpath evaluate Patient",
    ]
    root = spans["fhirpath evaluate Patient"]
    assert root.end_time - root.start_time == evaluation.end_ns - evaluation.start_ns
    for number, span in enumerate(list(spans.values())[:4], start=1):
        assert span.parent.span_id == root.context.span_id
        assert (span.start_time - root.start_time, span.end_time - span.start_time) == (number * 1_000, 1_000)
        assert span.attributes["fhirpath.stage"] == semconv.STAGES[number - 1]


def test_the_root_tells_what_was_evaluated_how_and_why_it_was_kept(telemetry):
    finish(
        telemetry,
        engine_version="1.2",
        fhir_version="4.0.1",
        execution_mode="pushdown",
        cache_hit=True,
        result_count=7,
        expression="Patient.name.where(use = 'official').family",
    )
    root = telemetry.spans()["fhirpath evaluate Patient"]
    assert dict(root.attributes) == {
        "fhirpath.engine.name": "fhirpath_otel",
        "fhirpath.engine.version": "1.2",
        "fhirpath.fhir.version": "4.0.1",
        "fhirpath.resource.type": "Patient",
        "fhirpath.execution.mode": "pushdown",
        "fhirpath.expression.template": "Patient.name.where(use = ?).family",
        "fhirpath.expression.hash": "0123456789abcdef",
        "fhirpath.cache.hit": True,
        "fhirpath.result.count": 7,
        "fhirpath.sampling.reason": "baseline",
        "fhirpath.sampling.adjusted_count": 4.0,
        "fhirpath.stage.parse.duration": 1e-6,
        "fhirpath.stage.type_check.duration": 1e-6,
        "fhirpath.stage.collection.duration": 1e-6,
        "fhirpath.stage.sql.duration": 1e-6,
    }
    assert root.kind is SpanKind.INTERNAL
    assert root.status.status_code is StatusCode.UNSET
    assert root.instrumentation_scope.name == "fhirpath_otel"
    assert root.instrumentation_scope.schema_url == semconv.SCHEMA_URL
    assert telemetry.spans()["fhirpath parse"].attributes["fhirpath.cache.hit"] is True


def test_the_root_tells_the_bottlenecks_with_the_gravest_first(make_telemetry):
    findings = (
        Finding("n-plus-one", "warning", "sql", 0, 12, {"executions": 10.0}, 0.1, "Evaluate once."),
        Finding("parse-repeated", "info", "parse", 0, 12, {"parses": 10.0}, 0.001, "Keep it."),
    )
    telemetry = make_telemetry(analyse=lambda _: findings)
    finish(telemetry)
    attributes = telemetry.spans()["fhirpath evaluate Patient"].attributes
    assert {name: value for name, value in attributes.items() if name.startswith("fhirpath.bottleneck.")} == {
        "fhirpath.bottleneck.rule": "n-plus-one",
        "fhirpath.bottleneck.rules": ("n-plus-one", "parse-repeated"),
        "fhirpath.bottleneck.severity": "warning",
        "fhirpath.bottleneck.advice": ("Evaluate once.", "Keep it."),
    }


@pytest.mark.parametrize(("system", "kind"), [("duckdb", SpanKind.INTERNAL), ("postgresql", SpanKind.CLIENT)])
def test_the_sql_span_follows_the_conventions_of_databases(telemetry, system, kind):
    finish(telemetry, db_system=system, statement_summary="SELECT Patient")
    span = telemetry.spans()["SELECT Patient"]
    assert span.kind is kind
    assert dict(span.attributes) == {
        "fhirpath.stage": "sql",
        "db.system.name": system,
        "db.query.summary": "SELECT Patient",
        "db.operation.name": "SELECT",
        "db.collection.name": "Patient",
    }


def test_the_sql_span_lasts_until_the_end_of_the_result_while_its_duration_leaves_the_consumer_out(telemetry):
    finish(telemetry, stages=("sql",), db_system="duckdb", sql_active_ns=400)
    spans = telemetry.spans()
    sql, root = spans["fhirpath sql"], spans["fhirpath evaluate Patient"]
    assert sql.end_time - sql.start_time == 1_000
    assert root.attributes["fhirpath.stage.sql.duration"] == 4e-7


def test_an_error_marks_the_root_and_the_last_stage_with_its_type_and_no_message(telemetry):
    finish(telemetry, "type", stages=("parse", "type_check"))
    spans = telemetry.spans()
    for name in ("fhirpath evaluate Patient", "fhirpath type_check"):
        assert spans[name].attributes["error.type"] == "type"
        assert spans[name].status.status_code is StatusCode.ERROR
        assert spans[name].status.description is None
        assert not spans[name].events
    assert spans["fhirpath parse"].status.status_code is StatusCode.UNSET
    assert "error.type" not in spans["fhirpath parse"].attributes


def test_names_of_types_that_the_model_does_not_know_are_not_shown(telemetry):
    finish(telemetry, resource_type="CANARY", db_system="duckdb", statement_summary="SELECT CANARY")
    assert list(telemetry.spans())[-2:] == ["SELECT", "fhirpath evaluate"]
    assert "CANARY" not in "".join(span.to_json() for span in telemetry.spans().values())


def test_an_expression_that_could_not_be_parsed_is_a_hash_only(telemetry):
    finish(telemetry, "syntax", stages=("parse",), template=None, expression="Patient..CANARY")
    root = telemetry.spans()["fhirpath evaluate Patient"]
    assert len(root.attributes["fhirpath.expression.hash"]) == 16
    assert "fhirpath.expression.template" not in root.attributes


@pytest.mark.parametrize(
    ("capture", "shown"),
    [
        ("template", {"fhirpath.expression.hash", "fhirpath.expression.template"}),
        ("hash", {"fhirpath.expression.hash"}),
        ("full", {"fhirpath.expression.hash", "fhirpath.expression.template", "fhirpath.expression.text"}),
    ],
)
def test_the_setting_says_what_is_shown_of_an_expression(make_telemetry, capture, shown):
    telemetry = make_telemetry(disclosure=Disclosure(capture, IS_TYPE))
    finish(telemetry, expression="Patient.name.where(use = 'official').family")
    attributes = telemetry.spans()["fhirpath evaluate Patient"].attributes
    assert {name for name in attributes if name.startswith("fhirpath.expression.")} == shown
    if capture == "full":
        assert attributes["fhirpath.expression.text"] == "Patient.name.where(use = 'official').family"


def test_a_fallback_into_memory_tells_its_place(telemetry):
    finish(telemetry, obstacle=(8, 13))
    root = telemetry.spans()["fhirpath evaluate Patient"]
    assert (root.attributes["fhirpath.fallback.position"], root.attributes["fhirpath.fallback.length"]) == (
        8,
        5,
    )
    telemetry.exporter.clear()
    finish(telemetry)
    assert "fhirpath.fallback.position" not in telemetry.spans()["fhirpath evaluate Patient"].attributes


def test_the_sql_span_is_the_one_that_a_driver_was_told(telemetry):
    told = SpanContext(0xABC, 0x77, False)
    finish(telemetry, premade=told)
    spans = telemetry.spans()
    assert spans["fhirpath sql"].context.span_id == 0x77
    assert {span.context.trace_id for span in spans.values()} == {0xABC}
    assert [span.context.span_id for span in spans.values()].count(0x77) == 1


OPERATORS = (
    OperatorTime("where", 13, 5, calls=3, active_ns=400, input_count=6, output_count=2),
    OperatorTime("CANARY", None, None, calls=1, active_ns=100, input_count=1, output_count=0),
)


def test_operators_are_spans_below_the_stage_in_memory_one_after_the_other(make_telemetry):
    telemetry = make_telemetry(disclosure=Disclosure(is_operator={"where"}.__contains__))
    finish(telemetry, stages=("parse", "in_memory", "sql"), operators=OPERATORS)
    spans = telemetry.spans()
    stage = spans["fhirpath in_memory"]
    where, unknown = spans["fhirpath where"], spans["fhirpath ?"]
    assert {where.parent.span_id, unknown.parent.span_id} == {stage.context.span_id}
    assert {where.kind, unknown.kind} == {SpanKind.INTERNAL}
    assert (where.start_time - stage.start_time, where.end_time - stage.start_time) == (0, 400)
    assert (unknown.start_time - stage.start_time, unknown.end_time - stage.start_time) == (400, 500)
    assert dict(where.attributes) == {
        "fhirpath.timing": "attributed",
        "fhirpath.operator.name": "where",
        "fhirpath.operator.position": 13,
        "fhirpath.operator.length": 5,
        "fhirpath.operator.calls": 3,
        "fhirpath.operator.input.count": 6,
        "fhirpath.operator.output.count": 2,
    }
    assert dict(unknown.attributes) == {
        "fhirpath.timing": "attributed",
        "fhirpath.operator.name": "?",
        "fhirpath.operator.calls": 1,
        "fhirpath.operator.input.count": 1,
        "fhirpath.operator.output.count": 0,
    }
    assert "CANARY" not in "".join(span.to_json() for span in spans.values())


def test_an_error_marks_no_operator(telemetry):
    finish(telemetry, "evaluation", stages=("sql", "in_memory"), operators=OPERATORS)
    spans = telemetry.spans()
    assert spans["fhirpath in_memory"].status.status_code is StatusCode.ERROR
    assert spans["fhirpath ?"].status.status_code is StatusCode.UNSET


class SteppingClock:
    """The time of day, which is set by `step` seconds at each look."""

    def __init__(self, step):
        self.now_ns, self.step_ns = 1_800_000_000 * 10**9, step * 10**9

    def __call__(self):
        self.now_ns += self.step_ns
        return self.now_ns


@pytest.mark.parametrize("step", [-86_400, -1, 1, 86_400])
def test_a_clock_that_is_set_meanwhile_changes_no_duration_and_tears_no_trace_apart(
    telemetry, monkeypatch, step
):
    for module in ("fhirpath_otel.telemetry.spans.time_ns", "opentelemetry.sdk.trace.time_ns"):
        monkeypatch.setattr(module, SteppingClock(step))
    evaluation = finish(telemetry)
    spans = telemetry.spans()
    root = spans["fhirpath evaluate Patient"]
    assert root.end_time - root.start_time == evaluation.end_ns - evaluation.start_ns > 0
    for number, stage in enumerate(("parse", "type_check", "collection", "sql"), start=1):
        span = spans[f"fhirpath {stage}"]
        assert (span.start_time - root.start_time, span.end_time - span.start_time) == (number * 1_000, 1_000)
    assert evaluation.duration_ns == evaluation.end_ns - evaluation.start_ns
    [point] = telemetry.points(semconv.EVALUATION_DURATION.name)
    assert point.sum == pytest.approx(evaluation.duration_ns / 1e9)

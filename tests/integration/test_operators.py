"""The level `operators` through the whole line: what an evaluation in memory says about its operators."""

from __future__ import annotations

import json

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import fhirpath_otel as fo
from fhirpath_otel import configuration, errors, semconv
from fhirpath_otel.telemetry.governor import Governor
from fhirpath_otel.telemetry.recorder import Decision, Recorder
from fhirpath_otel.telemetry.redaction import Disclosure

EXPRESSION = "Patient.name.where(use = 'official').first().family.upper()"
PATIENTS = 600  # two batches of resources


class KeepingRecorder(Recorder):
    """Keeps the notes of every evaluation."""

    def __init__(self, detail):
        self.evaluations = []
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        shown = Disclosure(is_type={"Patient"}.__contains__, is_operator=configuration._is_operator)
        super().__init__(
            lambda _: Decision(True, "baseline"),
            disclosure=shown,
            governor=Governor(detail=detail),
            tracer_provider=provider,
        )

    def begin(self):
        self.evaluations.append(super().begin())
        return self.evaluations[-1]

    def spans(self):
        return self.exporter.get_finished_spans()


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    path = tmp_path_factory.mktemp("patients") / "Patient.ndjson"
    names = [{"use": "usual", "family": "A"}, {"use": "official", "family": "B"}]
    patients = ({"resourceType": "Patient", "id": f"p{number}", "name": names} for number in range(PATIENTS))
    path.write_text("".join(json.dumps(patient) + "\n" for patient in patients))
    with fo.connect(":memory:") as opened:
        opened.load(path)
        yield opened


@pytest.fixture
def recorder(database, monkeypatch, detail):
    recorder = KeepingRecorder(detail)
    monkeypatch.setattr(database, "recorder", recorder)
    return recorder


@pytest.fixture
def detail():
    return semconv.OPERATOR_DETAIL


def test_an_evaluation_in_memory_notes_its_operators_over_all_resources(database, recorder):
    rows = database.evaluate(EXPRESSION).fetchall()
    assert [value for _, value in rows] == ["B"] * PATIENTS
    [evaluation] = recorder.evaluations
    found = {
        time.name: (
            EXPRESSION[time.position :][: time.length],
            time.calls,
            time.input_count,
            time.output_count,
        )
        for time in evaluation.operators
    }
    one, two = PATIENTS, 2 * PATIENTS
    assert found == {
        "Patient": ("Patient", one, one, one),
        "name": ("name", one, one, two),
        "where": ("where", one, two, one),
        "use": ("use", two, two, two),
        "=": ("=", two, 2 * two, two),
        "first": ("first", one, one, one),
        "family": ("family", one, one, one),
        "upper": ("upper", one, one, one),
    }
    assert sum(time.active_ns for time in evaluation.operators) <= evaluation.in_memory_active_ns


def test_operators_are_spans_below_the_stage_and_within_its_time(database, recorder):
    database.evaluate(EXPRESSION).fetchall()
    spans = {span.name: span for span in recorder.spans()}
    stage = spans["fhirpath in_memory"]
    below = [
        span for span in recorder.spans() if span.parent and span.parent.span_id == stage.context.span_id
    ]
    assert {span.name for span in below} == {
        f"fhirpath {name}" for name in ("Patient", "name", "where", "use", "=", "first", "family", "upper")
    }
    for span in below:
        assert stage.start_time <= span.start_time <= span.end_time <= stage.end_time
    active = [span.end_time - span.start_time for span in below]
    assert active == sorted(active, reverse=True)


@pytest.mark.parametrize(
    ("detail", "expression"),
    [
        *(
            (detail, EXPRESSION)
            for detail in (*semconv.DETAILS, semconv.AUTO)
            if detail != semconv.OPERATOR_DETAIL
        ),
        (semconv.OPERATOR_DETAIL, "Patient.name.family"),
    ],
)
def test_no_operator_is_noted_at_other_levels_and_in_sql(database, recorder, detail, expression):
    assert database.evaluate(expression).fetchall()
    [evaluation] = recorder.evaluations
    assert evaluation.operators == ()
    assert bool(recorder.spans()) == (detail != semconv.OFF)
    assert not [span for span in recorder.spans() if semconv.TIMING.name in span.attributes]


def test_operators_of_a_failed_evaluation_are_those_up_to_there(database, recorder):
    with pytest.raises(errors.EvaluationError):
        database.evaluate(
            "Patient.name.where(family.first() = 'A' or use.upper().decode('hex') = 'x')"
        ).fetchall()
    [evaluation] = recorder.evaluations
    assert evaluation.outcome.kept
    calls = {time.name: time.calls for time in evaluation.operators}
    assert calls["Patient"] == calls["decode"] == 1


def test_operators_of_a_result_that_is_closed_early_are_those_of_what_was_read(database, recorder):
    with database.evaluate(EXPRESSION) as result:
        next(iter(result))
    [evaluation] = recorder.evaluations
    assert {time.calls for time in evaluation.operators if time.name == "Patient"} == {512}


def test_a_result_of_which_nothing_was_read_has_none(database, recorder):
    database.evaluate(EXPRESSION).close()
    [evaluation] = recorder.evaluations
    assert evaluation.operators == ()

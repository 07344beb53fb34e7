"""Marks at the operators of expressions that fhirpathpy evaluates by itself."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter_ns

import fhirpathpy
import pytest
from fhirpathpy import engine
from fhirpathpy.engine import evaluators as evaluator_table
from fhirpathpy.engine.invocations import invocation_registry
from fhirpathpy.models import models
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fhirpath_otel.engines.fhirpathpy import MarkedExpression, with_operators
from fhirpath_otel.telemetry.calls import watch_calls
from fhirpath_otel.telemetry.evaluation import Evaluation
from fhirpath_otel.telemetry.governor import Governor
from fhirpath_otel.telemetry.recorder import Decision, Recorder
from fhirpath_otel.telemetry.redaction import Disclosure
from tests.unit.evaluator.memory.answers import PATIENT

RESOURCE = json.loads(PATIENT)
OFFICIAL = "Patient.name.where(use='official').given.first()"


def compiled(expression, **options):
    return fhirpathpy.compile(expression, models["r4"], options)


def outcome(function):
    """What it gave, or what it raised."""
    try:
        return function()
    except Exception as error:  # noqa: BLE001  whatever it raises is its answer
        return type(error), str(error)


def operators(expression, context=None, **options):
    """The operators that are noted; what comes out is what comes out without marks."""
    alone, evaluation = compiled(expression, **options), Evaluation()
    with_marks = MarkedExpression(alone, expression)
    assert outcome(lambda: with_marks.evaluate(evaluation, RESOURCE, context)) == outcome(
        lambda: alone(RESOURCE, context)
    )
    return sorted(evaluation.operators, key=lambda time: time.position)


def counts(times):
    """[(name, calls, input, output)] in the order of the text"""
    return [(time.name, time.calls, time.input_count, time.output_count) for time in times]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (
            # fhirpathpy evaluates a criterion twice where it gives something, and makes items of what stands beside
            # primitives.
            OFFICIAL,
            [
                ("Patient", 1, 1, 1),
                ("name", 1, 1, 2),
                ("where", 1, 2, 1),
                ("use", 4, 4, 4),
                ("=", 4, 8, 4),
                ("given", 1, 1, 4),
                ("first", 1, 4, 1),
            ],
        ),
        ("(1 | 2).select($this + 1)", [("|", 1, 2, 2), ("select", 1, 2, 2), ("+", 2, 4, 2)]),
        (
            "-name.count() in (-2 | 3)",
            [
                ("-", 1, 1, 1),
                ("name", 1, 1, 2),
                ("count", 1, 2, 1),
                ("in", 1, 3, 1),
                ("-", 1, 1, 1),
                ("|", 1, 2, 2),
            ],
        ),
        ("name[1].use is string", [("name", 1, 1, 2), ("[]", 1, 2, 1), ("use", 1, 1, 1), ("is", 1, 1, 1)]),
        ("repeat(contained).id", [("repeat", 1, 1, 1), ("contained", 2, 2, 1), ("id", 1, 1, 1)]),
        ("iif(active, name, contained)", [("iif", 1, 1, 2), ("active", 1, 1, 1), ("name", 1, 1, 2)]),
        (
            "contained.where(name.exists()).ofType(Organization).name",
            [
                ("contained", 1, 1, 1),
                ("where", 1, 1, 1),
                ("name", 2, 2, 2),
                ("exists", 2, 2, 2),
                ("ofType", 1, 1, 1),
                ("name", 1, 1, 1),
            ],
        ),
        ("{} = 1 or true", [("=", 1, 1, 0), ("or", 1, 1, 1)]),
    ],
)
def test_calls_and_items_are_counted_at_every_place(expression, expected):
    assert counts(operators(expression)) == expected


@pytest.mark.parametrize(
    ("expression", "places"),
    [
        (OFFICIAL, ["Patient", "name", "where", "use", "=", "given", "first"]),
        (
            "(  -( name.given /* [ */ [ 0 ].toInteger())) is Integer",
            ["-", "name", "given", "[", "toInteger", "is"],
        ),
        (
            "name.where(use in %use).given.ofType(FHIR.string).given",
            ["name", "where", "use", "in", "given", "ofType", "given"],
        ),
        (
            "`name`.`given`.exists() or active as boolean",
            ["`name`", "`given`", "exists", "or", "active", "as"],
        ),
        ("today() + 3 days > @2020-01-01", ["today", "+", ">"]),
    ],
)
def test_a_place_is_that_of_the_name_or_symbol(expression, places):
    times = operators(expression, {"use": ["official"]})
    assert [expression[time.position :][: time.length] for time in times] == places
    assert len({time.position for time in times}) == len(places)


@pytest.mark.parametrize("text", [None, "Patient.name", ""])
def test_where_the_text_is_not_known_or_another_nobody_knows_the_places(text):
    evaluation = Evaluation()
    MarkedExpression(compiled(OFFICIAL), text).evaluate(evaluation, RESOURCE)
    assert len(evaluation.operators) == 7
    assert {(time.position, time.length) for time in evaluation.operators} == {(None, None)}


def test_names_are_those_of_the_model_and_the_function_table_only():
    table = {"canary": {"fn": len}, "where": {"fn": lambda items, *_: items, "arity": {1: ["Expr"]}}}
    times = operators(
        "`CANARY`.canary() | name.`where`.where(CANARY = 1) | %canary",
        {"canary": 1},
        userInvocationTable=table,
    )
    assert [time.name for time in times] == ["?", "?", "|", "name", "?", "where", "|"]
    times = operators("unknown().name")
    assert counts(times) == [("?", 1, 1, 0)]


def test_the_times_of_all_operators_are_no_more_than_the_evaluation_took():
    evaluation = Evaluation()
    with_marks = MarkedExpression(compiled("name.where(given.where($this.exists()).exists()).select(given)"))
    started_ns = perf_counter_ns()
    with_marks.evaluate(evaluation, RESOURCE)
    took_ns = perf_counter_ns() - started_ns
    assert all(time.active_ns > 0 for time in evaluation.operators)
    assert sum(time.active_ns for time in evaluation.operators) <= took_ns


def test_the_marks_of_an_evaluation_that_failed_are_those_up_to_there():
    times = operators("name.select(use.substring('a') + family).exists()")
    assert counts(times) == [
        ("name", 1, 1, 2),
        ("select", 1, 2, 0),
        ("use", 1, 1, 1),
        ("substring", 1, 1, 0),
        ("+", 1, 0, 0),
    ]


def test_an_evaluation_without_marks_runs_the_original_code_only(monkeypatch):
    """Nothing of fhirpathpy is replaced, not even while a marked evaluation runs."""
    tables = (evaluator_table, invocation_registry)
    expression = compiled(OFFICIAL)
    tree = json.dumps(expression.parsedPath)
    MarkedExpression(expression, OFFICIAL)
    before = [dict(table) for table in tables], engine.do_eval, engine.doInvoke
    inside = []

    def look():
        inside.append(([dict(table) for table in tables], engine.do_eval, engine.doInvoke))
        inside.append(() if not compiled("name.given.count()")(RESOURCE) else None)
        return []

    table = {"look": {"fn": lambda _: look()}}
    evaluation = Evaluation()
    MarkedExpression(compiled("name.look()", userInvocationTable=table)).evaluate(evaluation, RESOURCE)
    assert inside == [before, None]
    assert ([dict(table) for table in tables], engine.do_eval, engine.doInvoke) == before
    assert json.dumps(expression.parsedPath) == tree
    assert [time.name for time in sorted(evaluation.operators)] == ["?", "name"]


def test_a_marked_evaluation_within_another_has_marks_of_its_own():
    inner, outer = Evaluation(), Evaluation()
    within = MarkedExpression(compiled("name.given.count()"))
    table = {"call": {"fn": lambda _: within.evaluate(inner, RESOURCE)}}
    MarkedExpression(compiled("name.call() + 1", userInvocationTable=table)).evaluate(outer, RESOURCE)
    assert {time.name: time.calls for time in inner.operators} == {"name": 1, "given": 1, "count": 1}
    assert {time.name: time.calls for time in outer.operators} == {"name": 1, "?": 1, "+": 1}


def test_evaluations_of_several_threads_have_their_own_marks():
    with_marks = MarkedExpression(compiled("name.where(use.exists()).given.count()"))

    def evaluate(number):
        evaluation = Evaluation()
        resource = {"resourceType": "Patient", "name": [{"use": "usual", "given": ["a"]}] * number}
        assert with_marks.evaluate(evaluation, resource) == [number]
        return {time.name: time.output_count for time in evaluation.operators if time.name != "use"}

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(evaluate, range(1, 65)))
    assert found == [{"name": n, "where": n, "exists": 2 * n, "given": n, "count": 1} for n in range(1, 65)]


def at_depth(frames, function):
    return function() if frames == 0 else at_depth(frames - 1, function)


def test_marks_do_not_exhaust_a_stack_that_an_evaluation_without_them_fits_on():
    expression = "name" + ".select($this" * 15 + ".use" + ")" * 15
    alone = compiled(expression)
    with_marks = MarkedExpression(alone, expression)
    fitted, fell_back = 0, 0
    for frames in range(0, sys.getrecursionlimit(), 5):
        try:
            expected = at_depth(frames, lambda: alone(RESOURCE))
        except RecursionError:
            break
        fitted += 1
        evaluation = Evaluation()
        given = at_depth(frames, lambda evaluation=evaluation: with_marks.evaluate(evaluation, RESOURCE))
        assert given == expected
        fell_back += not evaluation.operators
    assert fitted > 1
    assert fell_back > 0, "the test has not come to where marks do not fit"


@pytest.mark.parametrize("something", [None, len, lambda resource, context=None: [], object()])
def test_what_is_no_compiled_expression_is_refused(something):
    with pytest.raises(TypeError, match="no compiled expression of fhirpathpy"):
        MarkedExpression(something, "Patient.name")


def test_an_evaluation_notes_its_operators_where_it_is_called_for_that():
    alone = compiled(OFFICIAL)
    noting, evaluations = with_operators(alone, OFFICIAL), [Evaluation(), Evaluation()]
    for evaluation in evaluations:
        assert noting(evaluation)(RESOURCE, context={"a": 1}) == alone(RESOURCE)
        assert len(evaluation.operators) == 7


def test_what_cannot_be_marked_is_called_as_it_is():
    evaluation = Evaluation()
    assert with_operators(len)(evaluation) is len
    assert evaluation.operators == ()


def test_watched_calls_of_the_level_operators_show_them_below_the_stage():
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    recorder = Recorder(
        lambda _: Decision(True, "baseline"),
        governor=Governor(detail="operators"),
        disclosure=Disclosure(is_operator={"where", "first", "="}.__contains__),
        tracer_provider=provider,
    )
    alone = compiled(OFFICIAL)
    watched = watch_calls(recorder, alone, lambda _: None, with_operators=with_operators(alone, OFFICIAL))
    assert watched(RESOURCE) == alone(RESOURCE)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans["fhirpath where"].parent.span_id == spans["fhirpath in_memory"].context.span_id
    assert spans["fhirpath where"].attributes["fhirpath.operator.position"] == 13
    assert set(spans) >= {"fhirpath first", "fhirpath =", "fhirpath ?"}

"""Marks at the operators of the in-memory engine: what they count, and that they change nothing."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter_ns

import pytest

from fhirpath_otel.errors import EvaluationError
from fhirpath_otel.evaluator.memory import MemoryRows, compile_expression
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.parser import parse
from fhirpath_otel.evaluator.plan import SeveralItems
from fhirpath_otel.evaluator.typecheck import check
from fhirpath_otel.telemetry.operators import OperatorMarks
from tests.unit.evaluator.memory.answers import PATIENT


def compiled(expression):
    return compile_expression(check(parse(expression), expression, "Patient", load_model()))


def marked(expression, resource=PATIENT):
    """The operators that are noted, with the items, which are those of the evaluation without marks."""
    in_memory, marks = compiled(expression), OperatorMarks()
    items = list(in_memory.marked(marks)(resource))
    assert items == list(in_memory.evaluate(resource))
    return marks.times(), items


def counts(times):
    """{name: (calls, input, output)}"""
    return {time.name: (time.calls, time.input_count, time.output_count) for time in times}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (
            "Patient.name.where(use = 'official').given.first()",
            {
                "Patient": (1, 1, 1),
                "name": (1, 1, 2),
                "where": (1, 2, 1),
                "use": (2, 2, 2),
                "=": (2, 4, 2),
                "given": (1, 1, 2),
                "first": (1, 2, 1),
            },
        ),
        (
            "name.select(given.where($this.exists()).count() + 1)",
            {
                "name": (1, 1, 2),
                "select": (1, 2, 2),
                "given": (2, 2, 3),
                "where": (2, 3, 3),
                "exists": (3, 3, 3),
                "count": (2, 3, 2),
                "+": (2, 4, 2),
            },
        ),
        # What a short circuit leaves out is not evaluated, and so not counted.
        ("iif(active, name, contained.id)", {"iif": (1, 1, 2), "active": (1, 1, 1), "name": (1, 1, 2)}),
        # A run of one operator is one place.
        ("1 | 2 | name.given", {"|": (1, 5, 5), "name": (1, 1, 2), "given": (1, 2, 3)}),
        # `contained` is evaluated for the patient and for what that gave.
        ("repeat(contained).id", {"repeat": (1, 1, 1), "contained": (2, 2, 1), "id": (1, 1, 1)}),
        (
            "name.sort(-use).given",
            {"name": (1, 1, 2), "sort": (1, 2, 2), "use": (2, 2, 2), "given": (1, 2, 3)},
        ),
        # Nobody looks at the list one by one.
        ("gender in ('male' | 'female')", {"gender": (1, 1, 1), "in": (1, 1, 1)}),
        ("now() > @2020", {"now": (1, 1, 1), ">": (1, 2, 1)}),
        ("%resource.id", {"id": (1, 1, 1)}),
        ("'a' | 'b'", {}),
    ],
)
def test_calls_and_items_are_counted_at_every_place(expression, expected):
    times, _ = marked(expression)
    assert counts(times) == expected


@pytest.mark.parametrize(
    ("expression", "places"),
    [
        ("(  -( name.given /* [ */ [ 0 ].length())) is Integer", ["name", "given", "[", "length", "-", "is"]),
        ("name // (\n .  where ( `use` = 'x')", ["name", "where", "`", "="]),
        (
            "name.given.count() as Integer or active and true",
            ["name", "given", "count", "as", "or", "active", "and"],
        ),
        ("name.`given`.exists()", ["name", "`", "exists"]),
        ("telecom.where(system = 'x') | {}", ["telecom", "where", "system", "=", "|"]),
    ],
)
def test_a_place_is_that_of_the_name_or_symbol(expression, places):
    in_memory, marks = compiled(expression), OperatorMarks()
    in_memory.marked(marks)
    found = {
        mark.place.position: expression[mark.place.position :][: mark.place.length or 1]
        for mark in marks.marks
    }
    assert sorted(found.values()) == sorted(places)


def test_names_are_those_of_the_model_and_the_function_table_only():
    times, items = marked(
        "descendants().`CANARY`.exists() or name.`given`.empty() or descendants().CANARY.exists()"
    )
    assert items == [False]
    assert sorted(time.name for time in times) == sorted(
        ["descendants", "?", "exists", "name", "?", "empty", "descendants", "?", "exists", "or"]
    )


def test_a_step_of_a_path_is_told_from_a_function_of_its_name():
    resource = json.dumps(
        {"resourceType": "Patient", "contained": [{"resourceType": "ValueSet", "id": "contains"}]}
    )
    times, _ = marked("contained.descendants().contains.exists() or 'contains'.contains('a')", resource)
    assert [
        time.is_path for time in sorted(times, key=lambda time: time.position) if time.name == "contains"
    ] == [
        True,
        False,
    ]


def test_the_times_of_all_operators_are_no_more_than_the_evaluation_took():
    in_memory = compiled("name.where(given.where($this.exists()).exists()).select(given.first() & family)")
    marks = OperatorMarks()
    evaluate = in_memory.marked(marks)
    started_ns = perf_counter_ns()
    for _ in range(20):
        evaluate(PATIENT)
    took_ns = perf_counter_ns() - started_ns
    times = marks.times()
    assert all(time.active_ns > 0 for time in times)
    assert sum(time.active_ns for time in times) <= took_ns


def test_the_marks_of_an_evaluation_that_failed_are_those_up_to_there():
    in_memory, marks = compiled("name.select(use.substring(0, 1) & family.decode('hex'))"), OperatorMarks()
    evaluate = in_memory.marked(marks)
    with pytest.raises(EvaluationError) as with_marks:
        evaluate(PATIENT)
    with pytest.raises(EvaluationError) as without:
        in_memory.evaluate(PATIENT)
    assert str(with_marks.value) == str(without.value)
    assert type(with_marks.value.__cause__) is type(without.value.__cause__)
    assert counts(marks.times()) == {
        "name": (1, 1, 2),
        "select": (1, 2, 0),
        "&": (1, 1, 0),
        "use": (1, 1, 1),
        "substring": (1, 1, 1),
        "family": (1, 1, 1),
        "decode": (1, 1, 0),
    }


def test_several_items_are_refused_with_their_place():
    in_memory, marks = compiled("name.given.single()"), OperatorMarks()
    with pytest.raises(SeveralItems) as refused:
        in_memory.marked(marks)(PATIENT)
    assert (refused.value.start, refused.value.end) == (0, 10)


def at_depth(frames, function):
    return function() if frames == 0 else at_depth(frames - 1, function)


def test_marks_do_not_exhaust_a_stack_that_an_evaluation_without_them_fits_on():
    expression = "name" + ".where($this" * 30 + ".exists()" + ")" * 30
    in_memory = compiled(expression)
    fitted, fell_back = 0, 0
    for frames in range(0, sys.getrecursionlimit(), 5):
        marks = OperatorMarks()
        evaluate = in_memory.marked(marks)
        try:
            # A little deeper: the evaluation without marks is tried from within the one with them.
            expected = at_depth(frames + 20, lambda: list(in_memory.evaluate(PATIENT)))
        except (RecursionError, EvaluationError):
            break
        fitted += 1
        assert at_depth(frames, lambda evaluate=evaluate: list(evaluate(PATIENT))) == expected
        complete = {time.output_count for time in marks.times() if time.name == "where"} == {2, 1}
        fell_back += not complete
    assert fitted > 1
    assert fell_back > 0, "the test has not come to where marks do not fit"


def test_evaluations_of_several_threads_have_their_own_marks():
    in_memory = compiled("name.where(use.exists()).given.count()")

    def evaluate(times):
        marks = OperatorMarks()
        evaluate = in_memory.marked(marks)
        for _ in range(times):
            assert list(evaluate(PATIENT)) == [3]
        return {time.name: time.calls for time in marks.times() if time.name != "use"}

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(evaluate, range(1, 65)))
    assert found == [{"name": n, "where": n, "exists": 2 * n, "given": n, "count": n} for n in range(1, 65)]


class Texts:
    """The same resource under three ids, in two batches."""

    sql_active_ns = 0

    def batches(self):
        yield [("a", PATIENT), ("b", PATIENT)]
        yield [("c", PATIENT)]

    def close(self):
        pass


def test_marks_are_summed_up_over_all_resources():
    rows = MemoryRows(Texts(), compiled("name.given.count()"), with_operators=True)
    assert rows.operators == ()
    assert [row for batch in rows.batches() for row in batch] == [("a", 3), ("b", 3), ("c", 3)]
    assert counts(rows.operators) == {"name": (3, 3, 6), "given": (3, 6, 9), "count": (3, 9, 3)}
    assert sum(time.active_ns for time in rows.operators) <= rows.in_memory_active_ns


def test_without_being_asked_for_nothing_is_noted(monkeypatch):
    def no_marks(*_):
        raise AssertionError("marks were made")

    monkeypatch.setattr("fhirpath_otel.evaluator.memory.OperatorMarks", no_marks)
    rows = MemoryRows(Texts(), compiled("name.given.count()"))
    assert [row for batch in rows.batches() for row in batch] == [("a", 3), ("b", 3), ("c", 3)]
    assert rows.operators == ()

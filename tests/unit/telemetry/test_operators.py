from __future__ import annotations

import pytest

from fhirpath_otel.telemetry.evaluation import Evaluation
from fhirpath_otel.telemetry.operators import OperatorMarks, OperatorTime, Place, gravest, operator_values
from fhirpath_otel.telemetry.redaction import Disclosure

KNOWN = Disclosure(is_operator={"where", "given"}.__contains__)


def time(name, active_ns, *, calls=1, is_path=False):
    return OperatorTime(name, 0, 5, calls, active_ns, 2, 1, is_path)


def test_the_gravest_come_first_and_the_rest_is_summed_up():
    times = [time("first", 10, calls=3), time("where", 30), time("=", 20), time("or", 5, calls=2)]
    assert gravest(times, 2) == (
        time("where", 30),
        time("=", 20),
        OperatorTime("other", None, None, calls=5, active_ns=15, input_count=4, output_count=2),
    )


@pytest.mark.parametrize("limit", [4, 100])
def test_without_a_rest_nothing_is_summed_up(limit):
    times = [time("first", 10), time("where", 30), time("=", 20), time("or", 5)]
    assert [one.name for one in gravest(times, limit)] == ["where", "=", "first", "or"]


def test_what_is_kept_of_one_evaluation_is_bounded():
    marks = OperatorMarks(Place("and", number, 3) for number in range(5_000))
    for mark in marks.marks:
        mark.calls = mark.active_ns = 1
    *shown, other = marks.times()
    assert len(shown) == 100
    assert (other.name, other.calls, other.active_ns) == ("other", 4_900, 4_900)


def test_operators_that_were_never_called_are_left_out():
    marks = OperatorMarks([Place("where", 3, 5)])
    assert marks.times() == ()
    mark = marks.add(Place("given", 9, 5, is_path=True))
    mark.calls, mark.active_ns, mark.input_count, mark.output_count = 1, 7, 2, 3
    assert marks.times() == (OperatorTime("given", 9, 5, 1, 7, 2, 3, is_path=True),)


def test_the_metric_has_a_value_a_name_and_one_for_all_steps_of_paths():
    evaluation = Evaluation()
    assert operator_values(evaluation, KNOWN) == []
    evaluation.operators = (
        time("where", 40),
        time("name", 30, is_path=True),
        time("where", 20),
        time("given", 10, is_path=True),
        time("other", 1),
    )
    assert operator_values(evaluation, KNOWN) == [("where", 60), ("path", 40), ("other", 1)]


def test_the_metric_shows_no_name_that_is_not_known():
    evaluation = Evaluation()
    evaluation.operators = (time("CANARY", 2), time("where", 1))
    assert operator_values(evaluation, KNOWN) == [("?", 2), ("where", 1)]
    assert operator_values(evaluation, Disclosure()) == [("?", 3)]

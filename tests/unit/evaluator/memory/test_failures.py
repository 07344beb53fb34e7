"""What cannot be evaluated, and what fails over a resource: with its place, and without a value of the data."""

from __future__ import annotations

import copy
import json

import pytest

from fhirpath_otel.errors import EvaluationError, ExpressionTypeError
from fhirpath_otel.evaluator.memory import MemoryRows, compile_expression
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.parser import parse
from fhirpath_otel.evaluator.typecheck import check
from tests.unit.evaluator.memory.answers import answer


class Texts:
    """Two resources, the second of which has a family name that is no pattern."""

    sql_active_ns = 0

    def batches(self):
        for id_, family in (("good", "F"), ("bad", "(secret")):
            yield [(id_, json.dumps({"resourceType": "Patient", "id": id_, "name": [{"family": family}]}))]

    def close(self):
        pass


def failure(expression):
    typed = check(parse(expression), expression, "Patient", load_model())
    with pytest.raises(EvaluationError) as caught:
        list(MemoryRows(Texts(), compile_expression(typed)).batches())
    return caught.value


@pytest.mark.parametrize(
    ("expression", "place", "message"),
    [
        ("2 'cm' * 2 'm'", "*", "a product of these units cannot be evaluated yet"),
        ("1 + 4 'g' / 2 'm'", "/", "a quotient of these units cannot be evaluated yet"),
        ("conformsTo('http://x')", "'http://x'", "conformsTo() of this profile cannot be evaluated yet"),
        (
            "name.family.matches('(Ada')",
            "'(Ada'",
            "no regular expression: missing ), unterminated subpattern",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_told_with_its_place(expression, place, message):
    with pytest.raises(ExpressionTypeError) as caught:
        answer(expression)
    assert (expression[caught.value.start : caught.value.end], caught.value.message) == (place, message)


@pytest.mark.parametrize(
    ("expression", "place", "message"),
    [
        ("name.where('x'.matches(%resource.name.family)).use", "matches", "no regular expression"),
        (
            "name.family.where($this != 'F').decode('hex')",
            "decode",
            "evaluation in memory failed (ValueError)",
        ),
    ],
)
def test_a_failure_has_the_place_of_the_operator_and_the_resource(expression, place, message):
    error = failure(expression)
    assert (expression[error.start : error.end], error.message) == (place, message)
    assert error.resource_id == "bad"
    assert "secret" not in str(error)
    assert error.resource_id not in str(error)
    assert copy.copy(error).resource_id == error.resource_id


def test_an_error_of_no_resource_names_none():
    assert EvaluationError("m", "e", 0).resource_id is None

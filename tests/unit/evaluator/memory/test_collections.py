"""Parts of collections, children, conversions and replacements as the specification has them."""

from __future__ import annotations

import pytest

from tests.unit.evaluator.memory.answers import answer

QUANTITY = """{"resourceType": "Observation", "id": "o", "valueQuantity":
    {"value": 1.50, "unit": "milligram", "system": "http://unitsofmeasure.org", "code": "mg"}}"""
PATIENT = """{"resourceType": "Patient", "id": "p", "_gender": {"id": "g"}, "active": true,
    "name": [{"family": "F", "_family": {"id": "f"}, "given": ["A", null], "_given": [null, {"id": "x"}]}],
    "deceasedBoolean": false}"""


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("(1 | 2 | 3).skip(-1)", [1, 2, 3]),
        ("(1 | 2 | 3).skip(2)", [3]),
        ("(1 | 2 | 3).take(-1)", []),
        ("(1 | 2 | 3).take(0)", []),
        ("(1 | 2 | 3).take(2)", [1, 2]),
        ("(1 | 2 | 3).take({})", []),
        ("5.0.toInteger()", []),
        ("5.0.convertsToInteger()", [False]),
        ("'5.0'.toInteger()", []),
        ("'+5'.toInteger()", [5]),
        ("true.toInteger()", [1]),
        ("'99999999999'.toInteger()", []),
        ("'5'.convertsToInteger()", [True]),
        ("(1 'mg').toString()", ["1 'mg'"]),
        ("(3 days).toString()", ["3 days"]),
        (
            "'11/30/1972'.replaceMatches('(?<m>[0-9]+)/(?<d>[0-9]+)/(?<y>[0-9]+)', '${d}-${m}-${y}')",
            ["30-11-1972"],
        ),
        ("'ab'.replaceMatches('(a)(b)', '$2$1')", ["ba"]),
        ("'ab'.replaceMatches('(a)(b)', '${2}0')", ["b0"]),
        ("'ab'.matches('(?<x>a)b')", [True]),
        ("'ab'.matches('(?<=a)b')", [True]),
    ],
)
def test_an_expression_gives_what_the_specification_says(expression, expected):
    assert answer(expression) == expected


def test_a_quantity_of_a_resource_becomes_a_string_as_a_literal_does():
    assert answer("value.ofType(Quantity).toString()", QUANTITY, "Observation") == ["1.50 'mg'"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("children().count()", [5]),
        ("children().where($this is string)", ["p"]),
        ("children().where($this is HumanName).family", ["F"]),
        ("children().where($this is code).id", ["g"]),
        ("children().where($this is boolean)", [True, False]),
        ("name.children().ofType(string).id", ["f", "x"]),
        ("name.children().count()", [3]),
        ("descendants().where($this is string).count()", [8]),
    ],
)
def test_children_are_the_elements_with_their_types(expression, expected):
    assert answer(expression, PATIENT) == expected

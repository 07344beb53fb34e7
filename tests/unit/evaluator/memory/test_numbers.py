"""Results that no Decimal can be, and how many digits computed ones have."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.unit.evaluator.memory.answers import answer

HUGE = """{"resourceType": "Patient", "id": "p", "extension": [
    {"url": "urn:huge", "valueDecimal": 1e200}, {"url": "urn:beyond", "valueDecimal": 1e999999}
]}"""


@pytest.mark.parametrize(
    "expression",
    [
        "extension('urn:huge').value.ofType(decimal) + 1",
        "extension('urn:huge').value.ofType(decimal) * extension('urn:huge').value.ofType(decimal)",
        "extension('urn:huge').value.ofType(decimal) / 3",
        "extension('urn:huge').value.ofType(decimal).power(9)",
        "extension('urn:beyond').value.ofType(decimal) * 1000000",
        "extension('urn:huge').value.ofType(decimal).exp()",
        "extension('urn:huge').value.ofType(decimal).round(2)",
        "extension('urn:huge').value.ofType(decimal).floor()",
        "1000000.exp()",
        "0.ln()",
        "(-1).ln()",
        "0.power(-1)",
        "2.power(40)",
        "(-1).power(0.5)",
        "(-1).sqrt()",
        "5.log(1)",
        "0.log(10)",
        "5.log(0)",
        "99999999999.5.truncate()",
        "1 'g' / 0",
    ],
)
def test_what_cannot_be_computed_is_nothing(expression):
    assert answer(expression, HUGE) == []


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("2.sqrt()", "1.41421356"),
        ("81.sqrt()", "9"),
        ("1.exp()", "2.71828183"),
        ("2.ln()", "0.69314718"),
        ("16.log(2)", "4"),
        ("100.log(10)", "2"),
        ("2.power(10)", "1024"),
        ("2.power(-1)", "0.5"),
        ("2.5.power(2)", "6.25"),
        ("2.power(0.5)", "1.41421356"),
        ("(-2).power(3)", "-8"),
        ("1.9.truncate()", "1"),
        ("(-1.1).floor()", "-2"),
        ("1.1.ceiling()", "2"),
    ],
)
def test_irrational_results_have_eight_places(expression, expected):
    assert answer(expression) == [Decimal(expected)]


def test_whole_results_of_whole_numbers_are_integers():
    assert answer("2.power(10) is Integer and 1.1.ceiling() is Integer and 4.sqrt() is Decimal") == [True]

"""Quantities in memory: exact, or empty where nobody knows."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.unit.evaluator.memory.answers import answer


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 'kg' = 1000 'g'", [True]),
        ("500 'mg' = 0.5 'g'", [True]),
        ("0.1 'mg' + 0.2 'mg' = 300 'ug'", [True]),
        ("1 'dL' = 100 'ml'", [True]),
        ("1 'min' = 60 'ms'", [False]),
        ("120 'mm[Hg]' = 12 'cm[Hg]'", [True]),
        ("1 '[lb_av]' = 453.59237 'g'", [True]),
        ("1 'm[iU]' < 1 '[iU]'", [True]),
        ("1 'Pa' = 1 'a'", []),
        ("1 'h' = 3600 seconds", [True]),
        ("1 year = 12 months", [True]),
        ("1 year = 1 'a'", []),
        ("1 year ~ 1 'a'", [True]),
        ("1 month < 31 days", []),
        ("1 'kg' = 1 'm'", []),
        ("1 'kg' != 1 'm'", []),
        ("1 'kg' < 1 'm'", []),
        ("1 'kg' ~ 1 'm'", []),
        ("1 'kg' !~ 1 'm'", []),
        ("1 'kg' + 1 'm'", []),
        ("1 'mg/dL' = 1 'mg/dL'", [True]),
        ("1 'mg/dL' = 10 'mg/L'", []),
        ("4 'g' ~ 4040 'mg'", [True]),
        ("4.0 'g' ~ 4.6 'g'", [False]),
        ("1 = 1 '1'", [True]),
        ("2 > 1 '1'", [True]),
        ("(1 'kg' | 1000 'g').count()", [1]),
        ("(1 'kg' | 2 'kg').intersect(2000 'g').count()", [1]),
        ("(1 'kg' | 2 'kg').exclude(2000 'g').count()", [1]),
        ("(1000 'g').subsetOf(1 'kg' | 2 'kg')", [True]),
        ("(1 'kg' | 2 'kg').supersetOf(3 'kg')", [False]),
        ("1 'kg'.toQuantity('g').value", [Decimal(1000)]),
        ("1 'kg'.toQuantity('m')", []),
        ("'3 days'.toQuantity() = 3 days", [True]),
    ],
)
def test_units_are_compared_exactly_or_not_at_all(expression, expected):
    assert answer(expression) == expected


@pytest.mark.parametrize(
    ("expression", "value", "unit"),
    [
        ("1 'g' + 1 'mg'", "1001", "mg"),
        ("1 'cm' + 1 'm'", "101", "cm"),
        ("1 'kg' + 1 'g'", "1001", "g"),
        ("1 'kg' - 1 'g'", "999", "g"),
        ("1 'week' - 1 'day'", None, None),
        ("1 week - 1 day", "6", "day"),
        ("1 'kg' + 1 '[lb_av]'", "3.20462262", "[lb_av]"),
    ],
)
def test_a_sum_has_the_finer_unit(expression, value, unit):
    found = [(item["value"], item["unit"]) for item in answer(expression)]
    assert found == ([] if value is None else [(Decimal(value), unit)])


def test_a_quantity_of_a_resource_is_equivalent_to_a_literal():
    assert answer("extension.value.ofType(Quantity) ~ 2500 'g'") == [True]
    assert answer("extension.value.ofType(Quantity) ~ 120 'mm[Hg]'") == []

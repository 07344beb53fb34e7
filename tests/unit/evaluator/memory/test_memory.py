"""The in-memory engine alone, over the text of one resource: what fhirpathpy by itself would answer differently."""

from __future__ import annotations

from decimal import Decimal

import pytest

from fhirpath_otel.errors import EvaluationError, ExpressionTypeError
from fhirpath_otel.evaluator.plan import SeveralItems
from tests.unit.evaluator.memory.answers import answer


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # A primitive and what stands beside it are one item; without a value it is an item, but none of a result.
        ("birthDate", ["1974-12-25"]),
        ("birthDate.count()", [1]),
        ("birthDate.extension.value", [5]),
        ("birthDate.id", ["b"]),
        ("language", []),
        ("language.exists()", [True]),
        ("language.hasValue()", [False]),
        ("language = 'de'", []),
        ("language in ('de' | 'en')", []),
        ("language.extension.value.ofType(code)", ["unknown"]),
        ("name.given", ["B", "C\\n"]),
        ("name.given.count()", [3]),
        ("name.given.id", ["g"]),
        ("name.given.select($this.hasValue())", [False, True, True]),
        # Literals are what is written.
        ("name.given.where($this = 'C\\\\n').exists()", [True]),
        ("1.0 is Decimal", [True]),
        ("1.0.toString()", ["1.0"]),
        ("true.toString()", ["true"]),
        ("@2015.is(Date)", [True]),
        ("@2015-02T", ["2015-02"]),
        ("@T10:30", ["10:30"]),
        ("3 'mg'", [{"value": 3, "unit": "mg", "system": "http://unitsofmeasure.org", "code": "mg"}]),
        ("3 days", [{"value": 3, "unit": "days", "system": "http://unitsofmeasure.org", "code": "d"}]),
        # $this and $index are the criterion's own, also after an inner criterion.
        ("name.where(given.where($index = 9).empty() and $index = 1).use", ["usual"]),
        ("name.where(given.exists($this = 'B') and $this.use = 'official').family", ["Ada"]),
        ("name.select($index)", [0, 1]),
        # Collections are compared as wholes, dates as far as they go.
        ("(1 | 2) = (1 | 3)", [False]),
        ("(1 | 2) = (1 | 2)", [True]),
        ("(1 | 2) ~ (2 | 1)", [True]),
        ("1 = true", [False]),
        ("name.period.start < name.period.end", []),
        ("name.period.start = name.period.end", []),
        ("birthDate < @1975", [True]),
        ("birthDate = @T10:30", [False]),
        ("deceased.ofType(dateTime) = @2024-03-01T04:30:00Z", [True]),
        ("deceased.ofType(dateTime) < @2024-03-01T04:30:00", []),
        # Numbers keep their type and digits.
        ("extension.value.ofType(decimal)", [Decimal(2), Decimal("10.0")]),
        ("-multipleBirth.ofType(integer)", [-2]),
        ("-(1 | 2).where($this > 5)", []),
        ("2147483647 + 1", []),
        ("12345678901 + 1", [12345678902]),
        ("extension.value.ofType(Quantity) > 2 'kg'", [True]),
        ("1.5 'kg' + 0.5 'kg' = 2 'kg'", [True]),
        (
            "3 'mg' / 2",
            [{"value": Decimal("1.5"), "unit": "mg", "system": "http://unitsofmeasure.org", "code": "mg"}],
        ),
        ("2.5.round()", [3]),
        ("(-5 'mg').abs() = 5 'mg'", [True]),
        # Every extension of the url, not only the first.
        ("extension('urn:size').count()", [2]),
        # Types do not depend on what was asked before.
        ("gender.ofType(string)", ["female"]),
        ("gender is System.String", [False]),
        ("contained.ofType(Organization).name", ["Org"]),
        ("name.first().type().name", ["HumanName"]),
        # Functions that fhirpathpy has not, or has wrong.
        ("name.sort(-use).use", ["usual", "official"]),
        ("(3 | 1 | 2).sort()", [1, 2, 3]),
        ("'abc'.matchesFull('b')", [False]),
        ("'a<b'.escape('html').unescape('html')", ["a<b"]),
        ("''.startsWith('')", [True]),
        ("'abc'.indexOf({})", []),
        ("'abab'.lastIndexOf('ab')", [2]),
        ("1.0.toBoolean()", [True]),
        ("now() = now()", [True]),
        ("%`ext-patient-birthTime`", ["http://hl7.org/fhir/StructureDefinition/patient-birthTime"]),
        ("%loinc", ["http://loinc.org"]),
    ],
)
def test_an_expression_gives_what_the_specification_says(expression, expected):
    assert answer(expression) == expected


@pytest.mark.parametrize(
    ("calculation", "expected"),
    [
        ("@2024-01-31 + 1 month", "2024-02-29"),
        ("@2024-02-29 + 1 year", "2025-02-28"),
        ("@2024-02-29 - 12 months", "2023-02-28"),
        ("@2024-03-01 - 1 day", "2024-02-29"),
        ("@2024-01-01 + 1.9 weeks", "2024-01-08"),
        ("@2024 + 13 months", "2025"),
        ("@2024-01 + 59 days", "2024-02"),
        ("@2024 + 730 days", "2026"),
        ("@2024-01-01 + 36 hours", "2024-01-02"),
        ("@2024-01-01T10:00:00+02:00 + 1 hour", "2024-01-01T11:00:00+02:00"),
        ("@2024-01-01T10:30 + 90 seconds", "2024-01-01T10:31"),
        ("@2024-01-01T23:59:59.900Z + 200 milliseconds", "2024-01-02T00:00:00.100Z"),
        ("@T23:30 + 1 hour", "00:30"),
    ],
)
def test_a_duration_is_added_in_the_precision_and_zone_of_the_date(calculation, expected):
    assert answer(calculation) == [expected]


def test_a_date_beyond_the_calendar_is_nothing():
    assert answer("@9999-12-31 + 1 day") == []


@pytest.mark.parametrize(
    ("expression", "place"),
    [
        ("name.use > 'a'", "name.use"),
        ("name.use + 'a'", "name.use"),
        ("1 + (1 | 2)", "(1 | 2)"),
        ("name.given.not()", "name.given"),
        ("name.where(%resource.name.use and true)", "%resource.name.use"),
        ("iif(name.exists() and name.use, 1, 2)", "name.use"),
        ("name.given in name.given", "name.given"),
        ("name[name.given.count() | 7]", "name.given.count() | 7"),
    ],
)
def test_several_items_where_one_is_required_are_told_with_their_place(expression, place):
    with pytest.raises(SeveralItems) as caught:
        answer(expression)
    assert expression[caught.value.start : caught.value.end] == place


def test_an_error_of_the_engine_tells_no_value():
    with pytest.raises(EvaluationError) as caught:
        answer("'x'.matches('(' + name.family)")
    assert "Ada" not in caught.value.message


def test_a_function_that_nobody_evaluates_is_told_with_its_place():
    with pytest.raises(ExpressionTypeError) as caught:
        answer("name.exists() and gender.memberOf('urn:set')")
    assert caught.value.start == 25
    assert caught.value.message == "memberOf() is FHIRPath, but cannot be evaluated yet"


def test_trace_prints_nothing(capsys):
    assert answer("name.family.trace('family')") == ["Ada"]
    assert capsys.readouterr() == ("", "")


def test_a_union_of_5_000_codes_is_evaluated():
    codes = " | ".join(f"'{number}'" for number in range(5_000))
    assert answer(f"'4999' in ({codes})") == [True]

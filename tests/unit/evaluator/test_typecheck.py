"""The type check, against `data/typecheck.txt` and by the properties that other modules rely on."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from fhirpath_otel.errors import ExpressionTypeError, UsageError
from fhirpath_otel.evaluator import syntax
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.parser import parse
from fhirpath_otel.evaluator.typecheck import ResultType, TypedExpression, check, root_type

CASES_FILE = Path(__file__).parent / "data" / "typecheck.txt"


def read_cases() -> list[tuple[str, str, str]]:
    lines = [line for line in CASES_FILE.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    cases = []
    for head, expected in zip(lines[::2], lines[1::2], strict=True):
        resource_type, _, expression = head.partition(": ")
        assert not head.startswith(" "), head
        assert expected.startswith("  "), expected
        cases.append((resource_type, expression, expected.strip()))
    return cases


def typed(expression: str, resource_type: str | None = None) -> TypedExpression:
    return check(parse(expression), expression, resource_type, load_model())


@pytest.mark.parametrize(("resource_type", "expression", "expected"), read_cases())
def test_an_expression_has_this_type_or_error(resource_type: str, expression: str, expected: str) -> None:
    try:
        got = str(typed(expression, None if resource_type == "-" else resource_type).result)
    except ExpressionTypeError as error:
        got = f"! {error}"
    assert got == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("Patient.name", "Patient"),
        ("1 + Patient.name.count()", "Patient"),
        ("(Patient.name | Observation.code)", "Patient"),
        ("iif(true, Patient.name)", "Patient"),
        ("'a'.startsWith(Patient.id)", "Patient"),
        ("name.where(Patient.active)", None),
        ("contained.ofType(Patient)", None),
        ("contained is Patient", None),
        ("Resource.id", None),
        ("HumanName.given", None),
        ("%resource.id", None),
        ("1 + 1", None),
        ("nonsense(Patient.name)", None),
        ("now(Patient.name)", None),
    ],
)
def test_the_root_type_is_read_from_the_paths_of_the_resource(expression: str, expected: str | None) -> None:
    assert root_type(parse(expression), load_model()) == expected


@pytest.mark.parametrize(
    ("expression", "given", "expected"),
    [("Patient.name", None, "Patient"), ("name", "Patient", "Patient"), ("1 + 1", None, None)],
)
def test_the_resource_type_is_the_given_one_or_that_of_the_text(
    expression: str, given: str | None, expected: str | None
) -> None:
    assert typed(expression, given).resource_type == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Pateint", "unknown resource type 'Pateint'; did you mean 'Patient'?"),
        ("patient", "unknown resource type 'patient'; did you mean 'Patient'?"),
        ("HumanName", "unknown resource type 'HumanName'"),
        ("Xyzzy", "unknown resource type 'Xyzzy'"),
    ],
)
def test_a_resource_type_that_r4_does_not_have_is_wrong_usage(name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        typed("id", name)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "expression",
    [
        "Patient.name.where(use = 'official').given[0] | -1 | @2024 | 4 'mg'",
        "iif(Patient.name.exists() and %resource.active, $this.name.sort(-family).given, {})",
        "Patient.contact.repeat(children()).select($this is Patient or ('a' + 'b') in ('c' | true.toString()))",
    ],
)
def test_every_node_has_a_type(expression: str) -> None:
    result = typed(expression)
    missing = [
        expression[node.start : node.end] for node in syntax.walk(result.tree) if node not in result.types
    ]
    assert missing == []
    assert result.types[result.tree] == result.result


def test_names_of_types_have_no_type_of_their_own() -> None:
    result = typed("Observation.value.ofType(Quantity)")
    assert isinstance(result.tree, syntax.Function)
    assert result.tree.arguments[0] not in result.types
    assert result.types[result.tree] == ResultType(frozenset({"Quantity"}), many=False)


def test_a_choice_has_all_its_alternatives() -> None:
    assert typed("Patient.deceased").result.types == frozenset({"boolean", "dateTime"})


def test_an_error_has_its_place_and_its_suggestion_and_so_has_its_copy() -> None:
    with pytest.raises(ExpressionTypeError) as caught:
        typed("Patient.birthdate.toString()")
    for error in (caught.value, copy.copy(caught.value)):
        assert (error.start, error.end) == (8, 17)
        assert error.hint == "did you mean 'birthDate'?"
        assert str(error) == "unknown element 'birthdate' on Patient at 8; did you mean 'birthDate'?"


def test_the_place_of_a_name_in_backticks_includes_them() -> None:
    with pytest.raises(ExpressionTypeError) as caught:
        typed("Patient.`nme`.given")
    assert (caught.value.start, caught.value.end) == (8, 13)


def test_thousands_of_operands_pass() -> None:
    codes = " | ".join(f"'{number}'" for number in range(5_000))
    assert str(typed(f"Patient.gender in ({codes})").result) == "Boolean [0..1]"
    assert str(typed(" + ".join(["1"] * 5_000)).result) == "Integer [0..1]"


def test_the_deepest_nesting_that_the_parser_takes_passes() -> None:
    nested = "name.exists()"
    for _ in range(90):
        nested = f"iif({nested}, true, false)"
    assert str(typed(nested, "Patient").result) == "Boolean [0..1]"


def test_nested_closures_do_not_multiply_without_bound() -> None:
    nested = "item"
    for _ in range(60):
        nested = f"repeat({nested})"
    assert str(typed(nested, "Questionnaire").result) == "unknown [0..*]"

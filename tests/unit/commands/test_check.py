"""`check`: the type of an expression, or where it is wrong."""

from __future__ import annotations

import json

import pytest


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["Patient.name.given"], "string [0..*] for each Patient\n"),
        (["Patient.birthDate"], "date [0..1] for each Patient\n"),
        (["name.count()", "--resource-type", "Patient"], "Integer [0..1] for each Patient\n"),
        (["1 + 1"], "Integer [0..1]\n"),
    ],
)
def test_type_and_cardinality_are_printed(run, arguments, output):
    ended = run("check", *arguments)

    assert (ended.exit_code, ended.output, ended.errors) == (0, output, "")


@pytest.mark.parametrize(
    ("expression", "errors"),
    [
        (
            "Patient.birthdate",
            (
                "error: unknown element 'birthdate' on Patient at 8; did you mean 'birthDate'?\n"
                "  Patient.birthdate\n"
                "          ^^^^^^^^^\n"
            ),
        ),
        ("1 +", None),
        ("", None),
    ],
)
def test_an_error_is_shown_under_the_text(run, expression, errors):
    ended = run("check", expression)

    assert ended.exit_code == 2
    assert ended.output == ""
    assert len(ended.errors.splitlines()) == 3
    assert errors is None or ended.errors == errors


def test_json_tells_the_same(run):
    assert json.loads(run("check", "Patient.name.given", "--json").output) == {
        "expression": "Patient.name.given",
        "valid": True,
        "resourceType": "Patient",
        "types": ["string"],
        "cardinality": "0..*",
    }


def test_json_tells_an_error_with_its_place(run):
    ended = run("check", "Patient.birthdate", "--json")

    assert ended.exit_code == 2
    assert json.loads(ended.output) == {
        "expression": "Patient.birthdate",
        "valid": False,
        "error": {
            "kind": "type",
            "message": "unknown element 'birthdate' on Patient at 8; did you mean 'birthDate'?",
            "start": 8,
            "end": 17,
        },
    }


def test_an_unknown_resource_type_is_wrong_usage(run):
    ended = run("check", "name", "--resource-type", "Patiant")

    assert ended.exit_code == 2
    assert "Patiant" in ended.errors
    assert len(ended.errors.splitlines()) == 1

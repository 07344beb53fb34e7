"""Templates: no literal, no comment and no name of a user's ever gets through."""

from __future__ import annotations

import pytest

from fhirpath_otel.evaluator.functions import FUNCTIONS
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.parser import parse
from fhirpath_otel.evaluator.template import expression_template, known_names, operator_names


def text_of(expression: str) -> str | None:
    return expression_template(parse(expression), load_model()).text


@pytest.mark.parametrize(
    ("expression", "template"),
    [
        ("Patient.name.where(use = 'official').family", "Patient.name.where(use = ?).family"),
        ("Patient . name\n.given", "Patient.name.given"),
        ("Patient.name /* Meier */ .given // Meier", "Patient.name.given"),
        ("birthDate >= @1974-12-25 and active = true", "birthDate >= ? and active = ?"),
        ("4 days + 5 'mg' + 1.50 + 3 + {}", "? + ? + ? + ? + ?"),
        ("@T14:30 = @2015-02-04T14:34:28Z", "? = ?"),
        ("name[0].given[1]", "name[?].given[?]"),
        ("name.given.first() & ', ' & name.family", "name.given.first() & ? & name.family"),
        ("`Meier`.given", "?.given"),
        ("Patient.`name`", "Patient.?"),
        ("Meier.given", "?.given"),
        ("name.meier('x')", "name.?(?)"),
        ("%resource.id = %`Meier`", "%resource.id = %?"),
        ("%meier | %'meier' | %ucum", "%? | %? | %ucum"),
        ("$this.where($index > 0)", "$this.where($index > ?)"),
        ("value is Quantity", "value is Quantity"),
        ("value is FHIR.Quantity", "value is FHIR.Quantity"),
        ("value as System.String", "value as System.String"),
        ("value is Meier.Meier", "value is ?.?"),
        ("value.ofType(Quantity).value", "value.ofType(Quantity).value"),
        ("-5 + -value", "-? + -value"),
        ("(-value).abs()", "(-value).abs()"),
        ("-(value + 1)", "-(value + ?)"),
        ("(value + 1) * 2", "(value + ?) * ?"),
        ("value + 1 * 2", "value + ? * ?"),
        ("value - (1 - 2)", "value - (? - ?)"),
        ("(value - 1) - 2", "value - ? - ?"),
        ("(a | b).count()", "(? | ?).count()"),
        ("(name | contact)[0]", "(name | contact)[?]"),
        ("active or (active and active)", "active or active and active"),
        ("(active or active) and active", "(active or active) and active"),
        ("(value is Quantity).not()", "(value is Quantity).not()"),
        ("iif(active, name.given, {})", "iif(active, name.given, ?)"),
        ("now()", "now()"),
    ],
)
def test_a_template_is_the_expression_without_its_values(expression, template):
    assert text_of(expression) == template


@pytest.mark.parametrize(
    "expression",
    [
        "Patient.name.where(use = 'official').family",
        "(value + 1) * 2 - -3",
        "(active or active) and active implies active",
        "value is Quantity and (value as Quantity).value > 5 'mg'",
        "(name | contact.name).given.count() in (1 | 2)",
    ],
)
def test_a_template_keeps_the_structure(expression):
    literals_as_names = text_of(expression).replace("?", "id")
    assert text_of(literals_as_names).replace("id", "?") == text_of(expression)


def test_equal_shapes_have_equal_hashes():
    model = load_model()
    one, other, third = (
        expression_template(parse(text), model)
        for text in ("name.where(use='a')", "name . where(use = 'b')", "name.where(text = 'a')")
    )
    assert one == other
    assert one.hash != third.hash


def test_a_long_expression_is_cut_but_hashed_as_a_whole():
    model = load_model()
    one, other = (expression_template(parse(" | ".join(["name"] * count)), model) for count in (2_000, 2_001))
    assert len(one.text.encode()) == 1024
    assert one.text == other.text
    assert one.hash != other.hash


@pytest.mark.parametrize(
    "name", ["Patient", "given", "linkId", "HumanName", "string", "String", "where", "extension"]
)
def test_names_of_the_model_and_of_functions_are_known(name):
    assert name in known_names(load_model())


def test_no_name_that_only_a_user_could_have_chosen_is_known():
    assert not {"Meier", "meier", ""} & known_names(load_model())


def test_operators_are_functions_symbols_and_elements_and_nothing_of_a_user():
    names = operator_names(load_model())
    assert names >= {*FUNCTIONS, "and", "!=", "|", "div", "is", "in", "+", "[]", "given", "Patient"}
    assert not names & {"Meier", "meier", "`given`", "'Meier'", "%meier", "", "5"}

from __future__ import annotations

import pytest

from fhirpath_otel.telemetry.redaction import (
    MAX_EXPRESSION_CHARACTERS,
    Disclosure,
    Template,
    digest,
    error_type,
    template_from,
    unparsable,
)


def test_a_hash_is_16_digits_of_sha_256():
    assert digest("abc") == "ba7816bf8f01cfea"


@pytest.mark.parametrize("text", ["", "é", "\ud800", "\0", "x" * 100_000])
def test_any_text_has_a_hash(text):
    assert len(digest(text)) == 16
    assert unparsable(text) == Template(None, digest(text))


def test_a_long_template_is_cut_at_1_kb_and_hashed_as_a_whole():
    one, other = "a" * 1023 + "é", "a" * 1023 + "éb"
    assert template_from(one).text == "a" * 1023
    assert template_from(one).hash != template_from(other).hash


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("syntax", "syntax"),
        ("ConversionError", "ConversionError"),
        ("duckdb.ConversionException", "duckdb.ConversionException"),
        ("Could not convert 'Meier'", "_OTHER"),
        ("", "_OTHER"),
        ("x" * 200, "_OTHER"),
        ("Error\n", "_OTHER"),
    ],
)
def test_an_error_type_is_a_name_and_never_a_message(name, shown):
    assert error_type(name) == shown


@pytest.mark.parametrize(
    ("summary", "shown"),
    [
        ("SELECT Patient", ("SELECT", "Patient")),
        ("SELECT Meier", ("SELECT", None)),
        ("SELECT", ("SELECT", None)),
        ("select 'Meier' from x", ("?", None)),
    ],
)
def test_a_statement_shows_its_operation_and_known_types(summary, shown):
    assert Disclosure(is_type={"Patient"}.__contains__).statement(summary) == shown


def test_by_default_no_name_of_a_type_is_shown():
    assert Disclosure().type_name("Patient") is None


@pytest.mark.parametrize(
    ("capture", "text", "shown"),
    [
        ("template", "Patient.name", None),
        ("hash", "Patient.name", None),
        ("full", "Patient.name", "Patient.name"),
        ("full", "a\ud800b", "a?b"),
        ("full", "x" * 20_000, "x" * MAX_EXPRESSION_CHARACTERS),
        ("full", None, None),
    ],
)
def test_an_expression_is_shown_only_where_that_was_asked_for(capture, text, shown):
    assert Disclosure(capture).expression(text) == shown

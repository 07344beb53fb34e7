"""`evaluate`: what is asked of the database, and what comes out where."""

from __future__ import annotations

import json

import pytest

GIVEN = "Patient.name.given"


def test_a_table_goes_to_standard_output_and_the_trace_to_standard_error(run, database):
    ended = run("evaluate", "clinic.duckdb", GIVEN)

    assert ended.exit_code == 0
    assert ended.output == "id  value\n1   Ada\n1   Kaia\n2   Bruno\n3 items in 2 resources\n"
    assert ended.errors == f"trace {11:032x} kept: first sighting\n"
    assert database.closed
    assert database.results[0].closed


def test_options_reach_the_database(run, database):
    run("evaluate", "clinic.duckdb", GIVEN, "--resource-type", "Patient", "--mode", "memory")

    assert database.asked == [(GIVEN, {"resource_type": "Patient", "mode": "memory"})]


@pytest.mark.parametrize(
    ("form", "output"),
    [
        ("ndjson", '{"id":"o","value":1.50}\n'),
        ("json", '[\n{"id":"o","value":1.50}\n]\n'),
        ("csv", "id,value\r\no,1.50\r\n"),
        ("table", "id  value\no   1.50\n1 item in 1 resource\n"),
    ],
)
def test_each_format_keeps_the_digits_of_decimals(run, database, form, output):
    assert run("evaluate", "clinic.duckdb", "Observation.value.value", "--format", form).output == output


def test_several_expressions_are_told_apart(run, database):
    ended = run("evaluate", "clinic.duckdb", GIVEN, "Patient.active", "Patient.photo", "--format", "ndjson")

    assert [json.loads(line)["expression"] for line in ended.output.splitlines()] == [GIVEN] * 3 + [
        "Patient.active"
    ]
    assert ended.errors.splitlines() == [
        f"trace {11:032x} kept: first sighting",
        "trace dropped: not selected",
        f"trace {11:032x} kept: first sighting",
    ]


def test_several_tables_have_titles(run, database):
    output = run("evaluate", "clinic.duckdb", "Patient.active", "Patient.photo").output

    assert (
        output
        == "Patient.active\nid  value\n1   true\n1 item in 1 resource\nPatient.photo\n0 items in 0 resources\n"
    )


def test_a_limit_shortens_the_table_but_not_the_totals(run, database):
    output = run("evaluate", "clinic.duckdb", GIVEN, "--limit", "1").output

    assert output == "id  value\n1   Ada\n3 items in 2 resources (1 shown; --limit 0 shows all)\n"


def test_a_jaeger_url_makes_the_trace_a_link(run, database, monkeypatch):
    monkeypatch.setenv("OTEL_PYTHON_FHIRPATH_JAEGER_URL", "http://jaeger.example:16686/")

    errors = run("evaluate", "clinic.duckdb", GIVEN).errors

    assert errors == f"trace http://jaeger.example:16686/trace/{11:032x} kept: first sighting\n"


def test_the_reason_for_memory_is_told(run, database):
    errors = run("evaluate", "clinic.duckdb", GIVEN, "--mode", "memory").errors

    assert errors.startswith("evaluated in memory: trace() at 8\n")


def test_explain_adds_the_sql_without_touching_the_output(run, database):
    ended = run("evaluate", "clinic.duckdb", GIVEN, "--explain", "--format", "ndjson")

    assert "SELECT 1" in ended.errors
    assert "SELECT 1" not in ended.output


def test_a_file_gives_expressions_and_comments_are_left_out(run, database, tmp_path):
    file = tmp_path / "measure.txt"
    file.write_text(
        f"\ufeff# names\n{GIVEN}\n\n  // FHIRPath's own\n   # more\n  Patient.active  \n", encoding="utf-8"
    )

    ended = run("evaluate", "clinic.duckdb", "Patient.photo", "--file", file)

    assert ended.exit_code == 0
    assert [expression for expression, _ in database.asked] == ["Patient.photo", GIVEN, "Patient.active"]


def test_an_error_in_a_file_names_file_and_line_and_shows_the_place(run, database, tmp_path):
    file = tmp_path / "measure.txt"
    file.write_text(f"{GIVEN}\n\nPatient.name..given\n", encoding="utf-8")

    ended = run("evaluate", "clinic.duckdb", "--file", file)

    assert ended.exit_code == 2
    message, text, marks = ended.errors.splitlines()[-3:]
    assert message.startswith(f"error: {file}:3: ")
    assert text == "  Patient.name..given"
    assert marks.rstrip("^") == "  " + " " * len("Patient.name")


def test_an_error_while_reading_still_tells_the_trace(run, database):
    ended = run("evaluate", "clinic.duckdb", "Patient.broken", "--format", "ndjson")

    assert ended.exit_code == 1
    assert ended.output == '{"id":"1","value":"Ada"}\n'
    assert ended.errors == (
        f"trace {10:032x} kept: error\nerror: several items at 8\n  Patient.broken\n          ^^^^^^\n"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# nothing\n\n", "there is no expression to evaluate"),
        (b"Patient.name\n\xff\xfe\n", "measure.txt:2: not UTF-8 text"),
        (None, "measure.txt: No such file or directory"),
    ],
)
def test_a_file_without_expressions_is_wrong_usage(run, database, tmp_path, content, message):
    file = tmp_path / "measure.txt"
    if content is not None:
        file.write_bytes(content)

    ended = run("evaluate", "clinic.duckdb", "--file", file)

    assert ended.exit_code == 2
    assert message in ended.errors
    assert len(ended.errors.splitlines()) == 1


def test_no_expression_is_wrong_usage(run, database):
    ended = run("evaluate", "clinic.duckdb")

    assert ended.exit_code == 2
    assert ended.errors.startswith("error: there is no expression to evaluate")

"""The printed SQL: as checked in, SQL to a second parser too, and free of any text of the user's."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st

from fhirpath_otel.databases.duckdb_sql import Statement, print_statement
from fhirpath_otel.databases.duckdb_tables import LoadedType
from fhirpath_otel.evaluator.lowering import lower
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.parser import parse
from fhirpath_otel.evaluator.plan import NotExpressible
from fhirpath_otel.evaluator.typecheck import check

FILE = Path(__file__).with_name("data") / "duckdb_sql.txt"

PERIOD = {"start": "VARCHAR", "end": "VARCHAR"}
QUANTITY = {"value": "VARCHAR", "unit": "VARCHAR"}
CONCEPT = {"coding": [{"system": "VARCHAR", "code": "VARCHAR"}], "text": "VARCHAR"}
STRUCTURES = {
    "Patient": {
        "id": "VARCHAR",
        "active": "BOOLEAN",
        "gender": "VARCHAR",
        "birthDate": "VARCHAR",
        "_birthDate": {"extension": [{"url": "VARCHAR", "valueDateTime": "VARCHAR"}]},
        "multipleBirthBoolean": "BOOLEAN",
        "multipleBirthInteger": "INTEGER",
        "name": [{"use": "VARCHAR", "family": "VARCHAR", "given": ["VARCHAR"], "period": PERIOD}],
        "telecom": [{"system": "VARCHAR", "value": "VARCHAR", "rank": "INTEGER"}],
        "extension": [{"url": "VARCHAR", "valueCode": "VARCHAR", "extension": [{"url": "VARCHAR"}]}],
        "contained": ["JSON"],
    },
    "Observation": {
        "id": "VARCHAR",
        "status": "VARCHAR",
        "code": CONCEPT,
        "valueQuantity": QUANTITY,
        "valueString": "VARCHAR",
        "component": [{"code": CONCEPT, "valueQuantity": QUANTITY}],
    },
}
DROPPED = ("Patient.name.period.unknown",)
WIDTHS = dict.fromkeys(("valueQuantity.value", "component.valueQuantity.value"), (3, 2))


def printed(expression: str) -> Statement:
    model = load_model()
    typed = check(parse(expression), expression, None, model)
    assert typed.resource_type is not None
    planned = lower(typed, typed.resource_type, model)
    return print_statement(planned, LoadedType(STRUCTURES[typed.resource_type], DROPPED, WIDTHS))


def told(expression: str) -> str:
    """What the file says about an expression: the statement and its parameters, or what SQL cannot say."""
    try:
        statement = printed(expression)
    except NotExpressible as obstacle:
        return f"  ! {obstacle}\n"
    parameters = [str(value) if isinstance(value, Decimal) else repr(value) for value in statement.parameters]
    return f"  {statement.text}\n" + (f"  {', '.join(parameters)}\n" if parameters else "")


def sections() -> list[tuple[str, str]]:
    """The expressions of the file, and what it says about each."""
    found: list[tuple[str, str]] = []
    for line in FILE.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.startswith("  "):
            found[-1] = (found[-1][0], found[-1][1] + line)
        elif line.strip() and not line.startswith("#"):
            found.append((line.rstrip("\n"), ""))
    return found


SECTIONS = sections()
STATEMENTS = [expression for expression, text in SECTIONS if not text.startswith("  !")]


@pytest.mark.parametrize(("expression", "expected"), SECTIONS)
def test_the_statement_is_the_one_checked_in(expression, expected):
    assert told(expression) == expected


def test_the_file_has_forty_statements():
    assert len(STATEMENTS) >= 40


@pytest.mark.parametrize("expression", STATEMENTS)
def test_the_statement_is_sql_to_another_parser(expression):
    (tree,) = sqlglot.parse(printed(expression).text, dialect="duckdb")
    assert tree is not None
    assert tree.key == "select"


@pytest.mark.parametrize("expression", STATEMENTS)
def test_every_parameter_is_used_in_order(expression):
    statement = printed(expression)
    numbers = dict.fromkeys(re.findall(r"\$(\d+)", statement.text))
    assert list(numbers) == [str(number) for number in range(1, len(statement.parameters) + 1)]


TEMPLATES = (
    "Patient.name.where(family = {}).given",
    "Patient.where(gender in ({} | 'b')).id",
    "Patient.name.where(given contains {}).use",
    "Patient.extension({}).value",
    "Patient.name.all(use != {})",
    "iif(Patient.active, {}, 'b')",
)
HOSTILE = (
    "'",
    "''",
    '"',
    "\\",
    "$$",
    "$1",
    "$2",
    "?",
    "--",
    "/*",
    ";",
    "\n",
    "é",
    "😀",
    "x' OR 'a' = 'a",
    "\u2028",
)


@given(st.sampled_from(TEMPLATES), st.lists(st.one_of(st.text(), st.sampled_from(HOSTILE))).map("".join))
def test_a_literal_never_reaches_the_text_of_the_statement(template, text):
    text = text.replace("\0", "")  # no character of FHIR; the parser refuses it
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    statement, harmless = printed(template.format(f"'{escaped}'")), printed(template.format("'a'"))
    assert statement.text == harmless.text
    assert [text if value == "a" else value for value in harmless.parameters] == list(statement.parameters)


def rewrite() -> None:
    """Writes the expected statements anew, for a change of the printer that is meant."""
    lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("  ")]
    text = "".join(
        line + "\n" + (told(line) if line.strip() and not line.startswith("#") else "") for line in lines
    )
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    rewrite()

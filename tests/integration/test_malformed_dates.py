"""Dates that are none, through the whole line: SQL leaves such an element to memory, where they give nothing."""

from __future__ import annotations

import json

import pytest

import fhirpath_otel as fo
from fhirpath_otel.errors import ExpressionTypeError

DATES = ("1974-12-25", "0000-00-00", "31/12/2005", "2014-13-01", "2024-02-29")


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "patients.ndjson"
    patients = [
        {"resourceType": "Patient", "id": str(at), "birthDate": text, "active": True}
        for at, text in enumerate(DATES)
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in patients), encoding="utf-8")
    with fo.connect(":memory:") as opened:
        opened.load(path)
        yield opened


def test_a_malformed_date_is_compared_with_nothing(database):
    with database.evaluate("Patient.birthDate < @2020") as result:
        assert (result.mode, result.fetchall()) == ("memory", [("0", True), ("4", False)])


def test_sql_leaves_such_dates_alone(database):
    with pytest.raises(ExpressionTypeError):
        database.evaluate("Patient.birthDate < @2020", mode="sql")
    with database.evaluate("Patient.active") as result:
        assert result.mode == "sql"


def test_a_malformed_date_is_still_shown(database):
    assert [value for _, value in database.evaluate("Patient.birthDate").fetchall()] == list(DATES)

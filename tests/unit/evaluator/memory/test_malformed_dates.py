"""Texts in places of dates and times that no calendar or clock shows."""

from __future__ import annotations

import json

import pytest

from tests.unit.evaluator.memory.answers import answer


@pytest.mark.parametrize("text", ["0000-00-00", "31/12/2005", "2014-13-01", "2014-02-30", "soon", "19741225"])
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("birthDate < @2020", []),
        ("birthDate = @2020-01-01", []),
        ("birthDate != @2020-01-01", []),
        ("birthDate + 1 day", []),
        ("birthDate.lowBoundary()", []),
        ("birthDate.toDate()", []),
        ("birthDate in (@2020-01-01 | @2021-01-01)", []),
        ("deceased.ofType(dateTime) > @2020-01-01T10:00:00Z", []),
        ("birthDate.exists()", [True]),
        ("birthDate is date", [True]),
    ],
)
def test_a_malformed_date_gives_nothing(text, expression, expected):
    resource = {"resourceType": "Patient", "id": "p", "birthDate": text, "deceasedDateTime": text}
    assert answer(expression, json.dumps(resource)) == expected


def test_a_malformed_date_is_shown_as_it_is():
    resource = json.dumps({"resourceType": "Patient", "id": "p", "birthDate": "31/12/2005"})
    assert answer("birthDate", resource) == ["31/12/2005"]
    assert answer("birthDate.toString()", resource) == ["31/12/2005"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("'2014-02-30'.convertsToDate()", [False]),
        ("'2014-13-01'.toDate()", []),
        ("'2014-02-28'.toDate()", ["2014-02-28"]),
        ("'25:00'.toTime()", []),
        ("'12:60'.toTime()", []),
        ("'12:30'.convertsToTime()", [True]),
        ("'2014-01-01T24:00'.toDateTime()", []),
        ("'2014-01-01T10:00+15:00'.toDateTime()", []),
        ("'1974-12-25' = @1974-12-25", [False]),
    ],
)
def test_texts_become_what_the_calendar_and_the_clock_have(expression, expected):
    assert answer(expression) == expected

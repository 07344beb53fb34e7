"""Rows to JSON, NDJSON and CSV: exact, in UTF-8, as they arrive."""

from __future__ import annotations

import io
from decimal import Decimal

import pytest

from fhirpath_otel.reports.answers import FORMATS

ROWS = [
    ("1", 'Þóra, "x"\n'),
    ("1", True),
    ("2", 7),
    ("2", Decimal("1.50")),
    ("3", Decimal("12345678901234567890.123456780")),
    ("3", {"value": Decimal("0.10"), "code": "mg"}),
]


def written(form, answers, *, several):
    output = io.BytesIO()
    with FORMATS[form](output, several) as write:
        for expression, rows in answers:
            write(expression, rows)
    assert not output.closed
    return output.getvalue().decode("utf-8")


def test_ndjson_has_one_object_a_row_with_every_digit():
    assert written("ndjson", [("a", ROWS)], several=False) == (
        '{"id":"1","value":"Þóra, \\"x\\"\\n"}\n'
        '{"id":"1","value":true}\n'
        '{"id":"2","value":7}\n'
        '{"id":"2","value":1.50}\n'
        '{"id":"3","value":12345678901234567890.123456780}\n'
        '{"id":"3","value":{"value":0.10,"code":"mg"}}\n'
    )


def test_ndjson_names_the_expression_where_there_are_several():
    assert written("ndjson", [("a", ROWS[2:3]), ("b", []), ("c", ROWS[1:2])], several=True) == (
        '{"expression":"a","id":"2","value":7}\n{"expression":"c","id":"1","value":true}\n'
    )


def test_json_is_one_array_over_all_expressions():
    assert written("json", [("a", ROWS[2:4]), ("b", ROWS[1:2])], several=True) == (
        '[\n{"expression":"a","id":"2","value":7},\n{"expression":"a","id":"2","value":1.50},\n'
        '{"expression":"b","id":"1","value":true}\n]\n'
    )


def test_json_of_no_rows_is_an_empty_array():
    assert written("json", [("a", [])], several=False) == "[]\n"


def test_csv_quotes_what_needs_it_and_writes_complex_values_as_json():
    assert written("csv", [("a", ROWS)], several=False) == (
        "id,value\r\n"
        '1,"Þóra, ""x""\n"\r\n'
        "1,true\r\n"
        "2,7\r\n"
        "2,1.50\r\n"
        "3,12345678901234567890.123456780\r\n"
        '3,"{""value"":0.10,""code"":""mg""}"\r\n'
    )


def test_csv_has_a_header_once_and_the_expression_first_where_there_are_several():
    assert written("csv", [("a", ROWS[2:3]), ("b", ROWS[1:2])], several=True) == (
        "expression,id,value\r\na,2,7\r\nb,1,true\r\n"
    )


@pytest.mark.parametrize("form", ["ndjson", "csv", "json"])
def test_rows_are_written_as_they_arrive(form):
    output = io.BytesIO()
    seen = []

    def rows():
        yield "1", 1
        seen.append(output.getvalue())
        yield "2", 2

    with FORMATS[form](output, False) as write:
        write("a", rows())

    assert seen
    assert b"1" in seen[0]
    assert b"2" not in seen[0]

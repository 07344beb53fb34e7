"""The answers to expressions on standard output: a table for people, JSON, NDJSON or CSV for programs.

The formats for programs are written as the rows arrive, in UTF-8 whatever the locale, with every decimal's digits as
they are. `several` expressions are told apart by an `expression` beside each row.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from decimal import Decimal
from typing import Any, BinaryIO

import msgspec

Row = tuple[str, Any]
Write = Callable[[str, Iterable[Row]], None]
"""Writes one answer: an expression, and its rows of (resource id, FHIR JSON value)."""

encode = msgspec.json.Encoder(decimal_format="number").encode


def text(value: Any) -> str:
    """A value as one text: strings as they are, everything else as JSON."""
    return (
        value
        if isinstance(value, str)
        else str(value)
        if isinstance(value, Decimal)
        else encode(value).decode()
    )


@contextmanager
def ndjson(output: BinaryIO, several: bool) -> Iterator[Write]:
    """One JSON object a line and row."""

    def write(expression: str, rows: Iterable[Row]) -> None:
        output.writelines(encode(_object(expression, row, several)) + b"\n" for row in rows)

    yield write


@contextmanager
def json(output: BinaryIO, several: bool) -> Iterator[Write]:
    """One array of the same objects; it is closed only when nothing failed."""
    separator = b"[\n"

    def write(expression: str, rows: Iterable[Row]) -> None:
        nonlocal separator
        for row in rows:
            output.write(separator + encode(_object(expression, row, several)))
            separator = b",\n"

    yield write
    output.write(b"[]\n" if separator == b"[\n" else b"\n]\n")


@contextmanager
def comma_separated(output: BinaryIO, several: bool) -> Iterator[Write]:
    """A header and one line a row, as RFC 4180 has it; complex values are JSON."""
    lines = io.TextIOWrapper(output, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(lines)
    writer.writerow(["expression", "id", "value"] if several else ["id", "value"])

    def write(expression: str, rows: Iterable[Row]) -> None:
        before = [expression] if several else []
        writer.writerows([*before, identifier, text(value)] for identifier, value in rows)

    try:
        yield write
    finally:
        lines.detach()


def _object(expression: str, row: Row, several: bool) -> dict[str, Any]:
    identifier, value = row
    if several:
        return {"expression": expression, "id": identifier, "value": value}
    return {"id": identifier, "value": value}


FORMATS: Mapping[str, Callable[[BinaryIO, bool], AbstractContextManager[Write]]] = {
    "json": json,
    "ndjson": ndjson,
    "csv": comma_separated,
}

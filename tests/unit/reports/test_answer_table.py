"""The first rows and the totals, on a terminal and elsewhere."""

from __future__ import annotations

import io
from decimal import Decimal

import pytest
from rich.console import Console

from fhirpath_otel.reports.answer_table import print_table


def printed(rows, limit, *, title=None, width=40, terminal=False):
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=terminal,
        color_system=None,
        markup=False,
        highlight=False,
        emoji=False,
    )
    print_table(iter(rows), limit, console, title)
    return file.getvalue()


@pytest.mark.parametrize(
    ("rows", "limit", "text"),
    [
        ([], 20, "0 items in 0 resources\n"),
        ([("a", True)], 20, "id  value\na   true\n1 item in 1 resource\n"),
        (
            [("a-long-id", "x"), ("a-long-id", Decimal("1.50")), ("b", {"c": 1})],
            0,
            'id         value\na-long-id  x\na-long-id  1.50\nb          {"c":1}\n3 items in 2 resources\n',
        ),
        (
            [(str(number), number) for number in range(1200)],
            1,
            "id  value\n0   0\n1,200 items in 1,200 resources (1 shown; --limit 0 shows all)\n",
        ),
    ],
)
def test_rows_then_totals(rows, limit, text):
    assert printed(rows, limit, width=80) == text


def test_a_title_stands_above():
    assert printed([], 1, title="Patient.\tname") == "Patient. name\n0 items in 0 resources\n"


def test_a_value_cannot_move_the_cursor_or_break_the_line():
    assert "a   x�[2J�y\n" in printed([("a", "x\x1b[2J\ny")], 1)


def test_markup_in_data_is_shown_as_it_is():
    assert "a   [red]x[/red] :smile:\n" in printed([("a", "[red]x[/red] :smile:")], 1)


def test_a_long_value_is_cut_on_a_terminal_only():
    rows = [("a", "x" * 100)]

    assert "x" * 100 in printed(rows, 1)
    assert max(map(len, printed(rows, 1, terminal=True).split("\n"))) <= 40

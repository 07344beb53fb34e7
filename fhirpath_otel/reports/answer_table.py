"""The answer to one expression for people: its first rows, and how many there are in all."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich.text import Text

from fhirpath_otel.reports.answers import text
from fhirpath_otel.reports.caret import printable
from fhirpath_otel.reports.console import say

if TYPE_CHECKING:
    from rich.console import Console


def print_table(
    rows: Iterable[tuple[str, Any]], limit: int, console: Console, title: str | None = None
) -> None:
    """Print the first `limit` rows (0: all of them), and a last line with the totals. Reads all rows."""
    if title is not None:
        say(Text(printable(title), style="bold cyan"), console)
    reading = iter(rows)
    items = resources = 0
    last: str | None = None
    first = list(islice(reading, limit or None))
    width = max(len("id"), *(len(identifier) for identifier, _ in first), 0)
    if first:
        say(Text(f"{'id':<{width}}  value", style="bold"), console)
    for identifier, value in first:
        say(
            Text.assemble((f"{printable(identifier):<{width}}", "dim"), "  ", printable(text(value))), console
        )
    for group in (first, reading):
        for identifier, _ in group:
            items += 1
            resources += identifier != last
            last = identifier
    shown = f" ({len(first):,} shown; --limit 0 shows all)" if items > len(first) else ""
    say(f"{_count(items, 'item')} in {_count(resources, 'resource')}{shown}", console)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"

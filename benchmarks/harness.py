"""What every benchmark shares: paired runs, a table on standard output, and `--json`.

Machines are shared and noisy, so two things are compared by running them in turn (A B A B …) and quoting the median of
the ratios; absolute times are for orientation.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure; `holds` is None where there is no bar for it."""

    name: str
    value: float
    unit: str
    bar: str | None = None
    holds: bool | None = None


def at_most(name: str, value: float, unit: str, bar: float) -> Figure:
    """A figure that is to be at most `bar`."""
    return Figure(name, value, unit, f"≤ {bar:g}", value <= bar)


def seconds(function: Callable[[], object]) -> float:
    """How long one call takes."""
    started = perf_counter()
    function()
    return perf_counter() - started


def median_seconds(function: Callable[[], object], runs: int) -> float:
    """How long a call takes, in the median."""
    return statistics.median(seconds(function) for _ in range(runs))


def paired(one: Callable[[], object], other: Callable[[], object], runs: int) -> tuple[float, float, float]:
    """Median seconds of both, and the median of the ratios one/other of neighbouring runs; one run each for warmth."""
    one()
    other()
    times = [(seconds(one), seconds(other)) for _ in range(runs)]
    ratios = [first / second for first, second in times]
    return (
        statistics.median(first for first, _ in times),
        statistics.median(second for _, second in times),
        statistics.median(ratios),
    )


def arguments(description: str) -> argparse.Namespace:
    """The options of every benchmark: `quick` and `json`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smaller, for under a minute")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures as JSON")
    return parser.parse_args()


def report(title: str, figures: list[Figure], json_file: Path | None) -> None:
    """Prints the figures as a table; a bar that does not hold is said plainly, and is no failure of the program."""
    table = Table(title=title, title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("unit")
    table.add_column("bar")
    table.add_column("holds")
    for one in figures:
        holds = "" if one.holds is None else "yes" if one.holds else "NO"
        table.add_row(
            one.name,
            f"{one.value:,.4g}" if one.value < 1000 else f"{one.value:,.0f}",
            one.unit,
            one.bar or "",
            holds,
        )
    Console(width=110).print(table)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(one) for one in figures], indent=2) + "\n")

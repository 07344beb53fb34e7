"""What every benchmark shares: paired runs, a table on standard output, and `--json`.

Machines are shared and noisy, so two things are compared by running them in turn (A B A B …) and quoting the median of
the ratios; absolute times are for orientation.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter, process_time

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure; `holds` is None where there is no bar for it, or where the noise leaves it open."""

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


def cpu_seconds(function: Callable[[], object]) -> float:
    """How much CPU time of this process one call takes."""
    started = process_time()
    function()
    return process_time() - started


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


@dataclass(frozen=True, slots=True)
class Ratio:
    """How long one thing takes to another: the median over pairs, its 95 % interval, and the ratio of the totals."""

    median: float
    low: float
    high: float
    totals: float

    def figures(self, name: str, bar: float | None = None) -> list[Figure]:
        """What to print; a bar within the interval is neither met nor missed."""
        median = Figure(name, self.median, "ratio")
        if bar is not None:
            holds = True if self.high <= bar else False if self.low > bar else None
            median = Figure(name, self.median, "ratio", f"≤ {bar:g}", holds)
        return [
            median,
            Figure("    95 % from", self.low, "ratio"),
            Figure("    95 % to", self.high, "ratio"),
            Figure("    of the totals", self.totals, "ratio"),
        ]


def ratio(one: Callable[[], object], other: Callable[[], object], pairs: int) -> Ratio:
    """Runs both `pairs` times, next to each other and in changing order; few collections of garbage fall in between.

    What is taken is the CPU time of this process, all its threads included: on a shared machine the time of the clock
    tells more of the neighbours than of the work.
    """
    one()
    other()
    times: list[tuple[float, float]] = []
    for number in range(pairs):
        if number % 32 == 0:
            gc.collect()
        if number % 2:
            second = cpu_seconds(other)
            times.append((cpu_seconds(one), second))
        else:
            times.append((cpu_seconds(one), cpu_seconds(other)))
    ratios = sorted(first / second for first, second in times)
    # The interval of a median by order statistics: it supposes nothing about how the noise is distributed.
    reach = math.ceil(0.98 * math.sqrt(pairs))
    middle = (pairs - 1) / 2
    return Ratio(
        statistics.median(ratios),
        ratios[max(0, math.floor(middle - reach))],
        ratios[min(pairs - 1, math.ceil(middle + reach))],
        sum(first for first, _ in times) / sum(second for _, second in times),
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
        holds = {True: "yes", False: "NO", None: "open" if one.bar else ""}[one.holds]
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

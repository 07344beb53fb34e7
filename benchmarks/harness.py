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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter, process_time

from rich.console import Console
from rich.table import Table

Detail = float | str


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure; `holds` is None where there is no bar for it, or where the noise leaves it open.

    `limits` are those of its 95 % interval, `details` what else there is to say.
    """

    name: str
    value: float
    unit: str
    bar: str | None = None
    holds: bool | None = None
    limits: tuple[float, float] | None = None
    details: dict[str, Detail] = field(default_factory=dict)


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
class Interval:
    """An estimate with the limits of its 95 % interval."""

    value: float
    low: float
    high: float

    def figure(self, name: str, unit: str, bar: float | None = None, **details: Detail) -> Figure:
        """What to print; a bar within the interval is neither met nor missed."""
        limits = (self.low, self.high)
        if bar is None:
            return Figure(name, self.value, unit, limits=limits, details=details)
        holds = True if self.high <= bar else False if self.low > bar else None
        return Figure(name, self.value, unit, f"≤ {bar:g}", holds, limits, details)


def median(values: Iterable[float]) -> Interval:
    """The median; its interval is by order statistics, which supposes nothing about how the noise is distributed."""
    ordered = sorted(values)
    reach = math.ceil(0.98 * math.sqrt(len(ordered)))
    middle = (len(ordered) - 1) / 2
    return Interval(
        statistics.median(ordered),
        ordered[max(0, math.floor(middle - reach))],
        ordered[min(len(ordered) - 1, math.ceil(middle + reach))],
    )


@dataclass(frozen=True, slots=True)
class Ratio:
    """How long one thing takes to another: in the median over pairs, and in total, where what is rare shows."""

    median: Interval
    totals: Interval
    pairs: int

    def figures(self, name: str, bar: float | None = None, **details: Detail) -> list[Figure]:
        """What to print; the bar is for both."""
        return [
            self.median.figure(name, "ratio", bar, pairs=self.pairs, **details),
            self.totals.figure("    of the totals", "ratio", bar),
        ]

    def pairs_for(self, bar: float) -> int:
        """About how many pairs make the interval of the median half as wide as the distance to the bar."""
        reach = max(self.median.high - self.median.value, self.median.value - self.median.low)
        distance = max(abs(bar - self.median.value), 1e-6)
        return math.ceil(self.pairs * (2 * reach / distance) ** 2)


def ratio(one: Callable[[], object], other: Callable[[], object], pairs: int) -> Ratio:
    """Runs both `pairs` times, next to each other and in changing order; few collections of garbage fall in between,
    and neither is timed right after one.

    What is taken is the CPU time of this process, all its threads included: on a shared machine the time of the clock
    tells more of the neighbours than of the work.
    """
    one()
    other()
    times: list[tuple[float, float]] = []
    for number in range(pairs):
        if number % 32 == 0:
            gc.collect()
            one()
            other()
        if number % 2:
            second = cpu_seconds(other)
            times.append((cpu_seconds(one), second))
        else:
            times.append((cpu_seconds(one), cpu_seconds(other)))
    return Ratio(median(first / second for first, second in times), _of_totals(times), pairs)


def ratio_to_bar(
    one: Callable[[], object], other: Callable[[], object], bar: float, pilot: int, between: tuple[int, int]
) -> Ratio:
    """With as many pairs, within limits, as a pilot run says are needed to tell on which side of `bar` it is.

    The pilot is thrown away: a run that ends when one likes what one sees has no honest interval.
    """
    least, most = between
    return ratio(one, other, min(max(ratio(one, other, pilot).pairs_for(bar), least), most))


def _of_totals(times: Sequence[tuple[float, float]]) -> Interval:
    """The ratio of the sums, with the interval of a ratio estimate."""
    first, second = sum(one for one, _ in times), sum(other for _, other in times)
    found = first / second
    spread = math.sqrt(sum((one - found * other) ** 2 for one, other in times)) / second
    return Interval(found, found - 1.96 * spread, found + 1.96 * spread)


def options(description: str) -> argparse.ArgumentParser:
    """The options of every benchmark: `quick` and `json`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smaller, for under a minute")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures as JSON")
    return parser


def report(title: str, figures: Sequence[Figure], json_file: Path | None) -> None:
    """Prints the figures as a table; a bar that does not hold is said plainly, and is no failure of the program."""
    columns: dict[str, list[str]] = {
        "figure": [one.name for one in figures],
        "value": [_number(one.value) for one in figures],
        "95 %": ["" if one.limits is None else " – ".join(map(_number, one.limits)) for one in figures],
        "unit": [one.unit for one in figures],
        "bar": [one.bar or "" for one in figures],
        "holds": [{True: "yes", False: "NO", None: "open" if one.bar else ""}[one.holds] for one in figures],
        "details": [_details(one) for one in figures],
    }
    table, rows = Table(title=title, title_justify="left"), list[list[str]]()
    for name, texts in columns.items():
        if any(texts):
            table.add_column(name, justify="right" if name in {"value", "95 %"} else "left")
            rows.append(texts)
    for row in zip(*rows, strict=True):
        table.add_row(*row)
    Console(width=170 if any(columns["details"]) else 110).print(table)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(one) for one in figures], indent=2) + "\n")


def _number(value: float) -> str:
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _details(figure: Figure) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {value if isinstance(value, str) else _number(value)}"
        for name, value in figure.details.items()
    )

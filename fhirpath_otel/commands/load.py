"""`fhirpath-otel load`: FHIR resources from files into a database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import click

from fhirpath_otel.errors import DatabaseError

if TYPE_CHECKING:
    from rich.console import Console

    from fhirpath_otel.databases.duckdb_load import LoadReport, Progress

MOST_LISTED = 20
SECONDS_PER_LINE = 5.0


@click.command(
    epilog="""\b
Examples:
  fhirpath-otel load clinic.duckdb export/
  fhirpath-otel load clinic.duckdb Patient.ndjson Observation.ndjson.gz bundle.json
  fhirpath-otel load clinic.duckdb export/ --on-error skip"""
)
@click.argument("database")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="What a broken line or file does: stop the load, or be left out and listed.",
)
def load(database: str, paths: tuple[str, ...], on_error: str) -> None:
    """Load FHIR R4 resources from PATHs into DATABASE, a DuckDB file that is made if need be.

    A PATH is an NDJSON file, a Bundle or a single resource (JSON), each also gzipped, or a folder of these. All of it
    is loaded or nothing. A resource that is there already, by type and id, is replaced.
    """
    import fhirpath_otel as fo
    from fhirpath_otel.reports.console import error_output, output

    opened = fo.connect(database)
    try:
        with opened, progress(error_output()) as show:
            report = opened.load(*paths, on_error=on_error, progress=show)
    except BaseException:
        if opened.is_new:
            _remove_if_empty(Path(opened.path))
        raise
    print_load(report, output())


def _remove_if_empty(path: Path) -> None:
    """Removes a database file in which nothing is stored; after Ctrl-C there can be, if it came late."""
    import fhirpath_otel as fo

    with suppress(DatabaseError):
        with fo.connect(path, read_only=True) as database:
            empty = not database.resource_types()
        if empty:
            path.unlink()
            Path(f"{path}.wal").unlink(missing_ok=True)


@contextmanager
def progress(console: Console, clock: Callable[[], float] = monotonic) -> Iterator[Progress]:
    """Shows progress: a bar on a terminal, elsewhere a line every few seconds."""
    if not console.is_terminal:
        yield _lines(console, clock)
        return
    from rich import progress as bars

    columns = bars.TextColumn("Loading"), bars.BarColumn(), bars.DownloadColumn(), bars.TimeRemainingColumn()
    with bars.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("Loading", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(console: Console, clock: Callable[[], float]) -> Progress:
    from fhirpath_otel.reports.console import say
    from fhirpath_otel.reports.durations import size

    said = clock()

    def show(done: int, total: int) -> None:
        nonlocal said
        if clock() - said >= SECONDS_PER_LINE:
            said = clock()
            say(f"Loading: {done * 100 // max(total, 1)} % of {size(total)}", console)

    return show


def print_load(report: LoadReport, console: Console) -> None:
    """The resources of each type, then what was left out, ignored, or is not seen by SQL."""
    from fhirpath_otel.reports.console import say
    from fhirpath_otel.reports.durations import duration, size

    rate = size(report.bytes / max(report.seconds, 1e-9))
    files = f"{report.files:,} file{'' if report.files == 1 else 's'}"
    took = f"{size(report.bytes)} in {duration(report.seconds)}, {rate}/s"
    resources = f"{report.resources:,} resource{'' if report.resources == 1 else 's'}"
    say(f"Loaded {resources} of {files} ({took})", console)
    for name, counts in report.types.items():
        total = counts.loaded + counts.replaced + counts.unchanged
        known = [
            ("replaced", counts.replaced),
            ("unchanged", counts.unchanged),
            ("further copies left out", counts.repeated),
        ]
        told = ", ".join(f"{count:,} {what}" for what, count in known if count)
        say(f"{total:>12,} {name}{f' ({told})' if told else ''}", console)
    if report.entries_without_resource:
        count = report.entries_without_resource
        entries = "1 Bundle entry has" if count == 1 else f"{count:,} Bundle entries have"
        say(f"{entries} no resource", console)
    skipped = [
        f"{one.path}{'' if one.line is None else f':{one.line}'}: {one.reason}" for one in report.skipped
    ]
    _print_list("Skipped", report.skipped_count, skipped, console)
    _print_list("Not loaded, by their names,", len(report.ignored), report.ignored, console)
    dropped = [f"{one.path}: {one.reason}" for one in report.dropped]
    _print_list("Kept in the resources, but not seen by SQL,", len(dropped), dropped, console)


def _print_list(what: str, count: int, items: Sequence[str], console: Console) -> None:
    from fhirpath_otel.reports.caret import printable
    from fhirpath_otel.reports.console import say

    if not count:
        return
    say(f"{what} {count:,}:", console)
    for item in items[:MOST_LISTED]:
        say(f"  {printable(item)}", console)
    if count > len(items[:MOST_LISTED]):
        say(f"  … and {count - MOST_LISTED:,} more", console)

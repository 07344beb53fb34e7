"""`fhirpath-otel demo`: the main job on synthetic patients, from nothing to a trace."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from fhirpath_otel import Database
    from fhirpath_otel.telemetry.local_files import SpanRecord

EXPRESSIONS = (
    "Patient.name.given",
    "Patient.name.where(use = 'official').family",
    "Patient.telecom.where(system = 'phone').count()",
    "Patient.birthDate < @1950-01-01 and deceased.empty()",
    "Patient.extension('http://hl7.org/fhir/us/core/StructureDefinition/us-core-birthsex').value",
    "Observation.where(code.coding.exists(code = '4548-4')).value.ofType(Quantity).value",
    "Observation.component.where(code.coding.exists(code = '8480-6')).value.ofType(Quantity).value > 140",
    "Observation.where(value.ofType(Quantity).value > referenceRange.first().high.value).code.text",
    "Condition.where(clinicalStatus.coding.exists(code = 'active')).code.coding.first().display",
    "Encounter.where(class.code in ('EMER' | 'IMP')).participant.individual.display",
    # The last one is evaluated in memory, and is left out where the engine for that is not installed.
    "Patient.name.where(use = 'official').select(given.join(' ') + ' ' + family)",
)
ROUNDS = 6
NEXT = "Patient.name.where(use = 'usual').given.first()"
SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Run:
    """The first evaluation of an expression: how it went, and the beginning of the answer."""

    expression: str
    mode: str
    reason: str | None
    items: int
    seconds: float
    sample: tuple[Any, ...]


@click.command(
    epilog="""\b
Examples:
  fhirpath-otel demo
  fhirpath-otel demo --patients 20000
  OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 fhirpath-otel demo"""
)
@click.option(
    "--patients",
    type=click.IntRange(1, 1_000_000),
    default=2000,
    show_default=True,
    help="Size of the population.",
)
def demo(patients: int) -> None:
    """Make synthetic patients, load them, evaluate, and show where the time went.

    Files go to fhirpath-otel/demo in your cache directory. With OTEL_EXPORTER_OTLP_ENDPOINT set, traces and metrics
    are exported there too.
    """
    import fhirpath_otel as fo
    from fhirpath_otel import configuration
    from fhirpath_otel.reports.console import output

    console = output()
    fo.configure(local_traces=True)
    folder = _cache_directory()
    path = folder / "demo.duckdb"
    for stale in (path, folder / "demo.duckdb.wal"):
        stale.unlink(missing_ok=True)  # an earlier version may have made it
    _make_population(folder, patients, console)
    outcomes: Counter[tuple[str, str]] = Counter()
    with fo.connect(path) as database:
        _load(database, folder, console)
        expressions = EXPRESSIONS if find_spec("fhirpathpy") else EXPRESSIONS[:-1]
        runs = [_run(database, expression, outcomes) for expression in expressions]
        for _ in range(ROUNDS - 1):
            for expression in expressions:
                _run(database, expression, outcomes)
    _print_answers(runs, console)
    configuration.flush()
    _print_telemetry(outcomes, configuration.trace_file(), console)
    console.print("\nNext:", style="bold")
    console.print(f"  {_next_command(path)}", soft_wrap=True)


def _cache_directory() -> Path:
    """A directory for what can be made again (XDG base directories)."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification has relative paths ignored.
    folder = (base if base.is_absolute() else Path.home() / ".cache") / "fhirpath-otel" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _make_population(folder: Path, patients: int, console: Console) -> None:
    from fhirpath_otel import population
    from fhirpath_otel.reports.durations import duration, size

    started = perf_counter()
    paths = population.write(folder / "population", patients)
    written = sum(path.stat().st_size for path in paths.values())
    took = duration(perf_counter() - started)
    console.print(f"Made     {patients:,} patients, {size(written)} of NDJSON, in {took}", soft_wrap=True)


def _load(database: Database, folder: Path, console: Console) -> None:
    from fhirpath_otel.reports.durations import duration, size

    report = database.load(folder / "population")
    rate = size(report.bytes / report.seconds)
    console.print(
        f"Loaded   {report.resources:,} resources in {duration(report.seconds)}, {rate}/s", soft_wrap=True
    )


def _run(database: Database, expression: str, outcomes: Counter[tuple[str, str]]) -> Run:
    started = perf_counter()
    with database.evaluate(expression) as result:
        rows = iter(result)
        sample = tuple(value for _, value in islice(rows, SAMPLES))
        items = len(sample) + sum(1 for _ in rows)
    took = perf_counter() - started
    if result.sampling is not None:
        outcomes[result.sampling.decision, result.sampling.reason] += 1
    return Run(expression, result.mode, result.mode_reason, items, took, sample)


def _print_answers(runs: list[Run], console: Console) -> None:
    from fhirpath_otel.reports.answers import text
    from fhirpath_otel.reports.console import say
    from fhirpath_otel.reports.durations import duration

    console.print("\nAnswers", style="bold")
    for run in runs:
        say(f"  {run.expression}", console)
        shown = ", ".join(map(text, run.sample)) + (", …" if run.items > len(run.sample) else "")
        say(f"      {run.items:>7,} items  {duration(run.seconds):>8}  {run.mode:<6}  {shown}", console)
        if run.reason is not None:
            say(f"      in memory, because of {run.reason}", console)


def _print_telemetry(outcomes: Counter[tuple[str, str]], file: Path | None, console: Console) -> None:
    from fhirpath_otel import semconv
    from fhirpath_otel.reports.console import say
    from fhirpath_otel.reports.trace_tree import trace_tree
    from fhirpath_otel.telemetry.local_files import read_traces

    spans = read_traces(file) if file is not None else []
    slowest = _slowest(spans)
    if slowest is not None:
        console.print("\nThe slowest evaluation whose trace was kept", style="bold")
        say(f"  {slowest.attributes.get(semconv.EXPRESSION_TEMPLATE.name, slowest.name)}", console)
        for line in trace_tree(spans, slowest.trace_id):
            say(line, console)
    console.print(f"\nTraces of {outcomes.total():,} evaluations", style="bold")
    for (decision, reason), count in outcomes.most_common():
        console.print(f"  {count:>5,} {decision:<10} {reason.replace('_', ' ')}", soft_wrap=True)
    if file is not None:
        console.print(f"  Those kept are in {file}", soft_wrap=True)


def _slowest(spans: list[SpanRecord]) -> SpanRecord | None:
    from fhirpath_otel import semconv

    roots = [span for span in spans if semconv.ADJUSTED_COUNT.name in span.attributes]
    return max(roots, key=lambda span: span.end_ns - span.start_ns, default=None)


def _next_command(path: Path) -> str:
    """A command that works when it is pasted, also where the virtual environment is not on the PATH."""
    program = Path(sys.argv[0])
    if program.name != "fhirpath-otel":
        words = [sys.executable, "-m", "fhirpath_otel"]
    elif shutil.which("fhirpath-otel") == str(program.absolute()):
        words = ["fhirpath-otel"]
    else:
        words = [os.path.relpath(program)]
    return f'{shlex.join([*words, "evaluate", str(path)])} "{NEXT}" --explain'

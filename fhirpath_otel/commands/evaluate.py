"""`fhirpath-otel evaluate`: the answers to expressions, and where the time went."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import click

from fhirpath_otel.commands.expressions import Expression, read_expressions
from fhirpath_otel.commands.telemetry import set_up_telemetry
from fhirpath_otel.errors import ExpressionError, FhirpathOtelError, UsageError

if TYPE_CHECKING:
    from fhirpath_otel.evaluator.result import Result, Row
    from fhirpath_otel.reports.answers import Write


@click.command(
    epilog="""\b
Examples:
  fhirpath-otel evaluate clinic.duckdb "Patient.name.where(use = 'official').family"
  fhirpath-otel evaluate clinic.duckdb "name.given" --resource-type Patient --explain
  fhirpath-otel evaluate clinic.duckdb "Patient.birthDate" --format ndjson | head
  fhirpath-otel evaluate clinic.duckdb --file measure.txt --format csv > measure.csv

Put -- before an expression that begins with a minus sign."""
)
@click.argument("database")
@click.argument("expressions", nargs=-1, metavar="EXPRESSION...")
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="EXPRESSIONS",
    help="Text file with one expression a line, - for standard input; lines that begin with # are comments.",
)
@click.option(
    "--resource-type",
    metavar="TYPE",
    help="Resource type to evaluate for, where the expression does not start with one.",
)
@click.option(
    "--mode",
    type=click.Choice(["auto", "sql", "memory"]),
    default="auto",
    show_default=True,
    help="SQL, in memory, or SQL wherever it can express the expression.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "ndjson", "csv"]),
    default="table",
    show_default=True,
    help="How answers are printed; ndjson and csv stream.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Rows that a table shows of each answer; 0 shows all.",
)
@click.option(
    "--explain", is_flag=True, help="Also print the SQL, the mode with its reason, and the stage times."
)
def evaluate(
    database: str,
    expressions: tuple[str, ...],
    files: tuple[str, ...],
    resource_type: str | None,
    mode: str,
    form: str,
    limit: int,
    explain: bool,
) -> None:
    """Evaluate EXPRESSIONs for every resource in DATABASE.

    An answer has one row, a resource's id and a value, for each item; a resource with an empty result has none. Several
    expressions share one trace. Which traces were kept, and why, goes to standard error.
    """
    import fhirpath_otel as fo

    asked = [*map(Expression, expressions), *(one for file in files for one in read_expressions(file))]
    if not asked:
        raise UsageError(
            "there is no expression to evaluate: give one after DATABASE, or a --file that has some"
        )
    several = len(asked) > 1
    set_up_telemetry()
    with (
        fo.connect(database, read_only=True) as opened,
        _one_trace(several),
        _writer(form, limit, several) as write,
    ):
        for expression in asked:
            with _placed(expression):
                result = opened.evaluate(expression.text, resource_type=resource_type, mode=mode)
                _answer(result, write, explain)


def _answer(result: Result, write: Write, explain: bool) -> None:
    try:
        with result:
            write(result.explain().expression, result)
    finally:
        sys.stdout.flush()
        _tell(result, explain)


@contextmanager
def _one_trace(several: bool) -> Iterator[None]:
    """A span around several evaluations, so that they share its trace. Of an error it tells no more than its type."""
    if not several:
        yield
        return
    from opentelemetry import trace

    from fhirpath_otel import semconv

    tracer = trace.get_tracer(semconv.SCOPE)
    with tracer.start_as_current_span(
        semconv.COMMAND_SPAN.name, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield
        except FhirpathOtelError as error:
            span.set_attribute(semconv.ERROR_TYPE.name, error.error_type)
            span.set_status(trace.StatusCode.ERROR)
            raise


def _writer(form: str, limit: int, several: bool) -> AbstractContextManager[Write]:
    if form != "table":
        from fhirpath_otel.reports.answers import FORMATS

        return FORMATS[form](sys.stdout.buffer, several)

    from fhirpath_otel.reports.answer_table import print_table
    from fhirpath_otel.reports.console import output

    def write(expression: str, rows: Iterable[Row]) -> None:
        print_table(rows, limit, output(), title=expression if several else None)

    return nullcontext(write)


@contextmanager
def _placed(expression: Expression) -> Iterator[None]:
    """Errors about an expression out of a file begin with its file and line."""
    try:
        yield
    except ExpressionError as error:
        if expression.place is None:
            raise
        message = f"{expression.place}: {error.message}"
        placed = type(error)(message, error.expression, error.start, error.end, error.hint)
        vars(placed).update(vars(error) | {"message": message})
        raise placed from error


def _tell(result: Result, explain: bool) -> None:
    """What became of the trace, and what --explain asks for, on standard error."""
    from fhirpath_otel import settings

    if explain:
        click.echo(str(result.explain()), err=True)
    elif result.mode_reason is not None:
        click.echo(f"evaluated in memory: {result.mode_reason}", err=True)
    outcome = result.sampling
    if outcome is not None and result.trace_id is not None:
        base = settings.current().jaeger_url.rstrip("/")
        trace = f"{base}/trace/{result.trace_id}" if base else result.trace_id
        click.echo(f"trace {trace} kept: {outcome.reason.replace('_', ' ')}", err=True)
    elif outcome is not None:
        click.echo(f"trace {outcome.decision}: {outcome.reason.replace('_', ' ')}", err=True)

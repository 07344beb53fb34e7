"""The command line's way in and out: `fhirpath-otel`, or `python -m fhirpath_otel`.

Every failure ends here as one clear line on standard error (with the place under the text, where it is about an
expression) and an exit code: 1 failure, 2 wrong usage, 130 Ctrl-C, 141 nobody reads the output any more.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import sys
from collections.abc import Sequence

import click

from fhirpath_otel.commands import BROKEN_PIPE, cli
from fhirpath_otel.errors import ExpressionError, FhirpathOtelError
from fhirpath_otel.reports.caret import caret, printable

INTERRUPTED = 130
INDENT = "  "
MOST_COLUMNS = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with these arguments (the process's by default); gives the exit code."""
    _log_one_line_each()
    _print_everything()
    try:
        result = cli.main(arguments, prog_name="fhirpath-otel", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        return _fail(_usage(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except ExpressionError as error:
        return _fail(_with_resource(error), error.exit_code, _place(error))
    except FhirpathOtelError as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:
        _discard_output()
        return _fail(f"{error.filename or 'output'}: {error.strerror or error}", 1)
    except Exception as error:  # a bug is no reason for a screenful of traceback
        if os.environ.get("FHIRPATH_OTEL_TRACEBACK"):
            raise
        hint = "this is a bug; FHIRPATH_OTEL_TRACEBACK=1 shows where"
        return _fail(f"{type(error).__name__}: {error} ({hint})", 1)
    return result if isinstance(result, int) else 0


def _fail(message: str, exit_code: int, place: str | None = None) -> int:
    color = False if os.environ.get("NO_COLOR") else None
    click.echo(click.style("error:", fg="red", bold=True) + f" {printable(message)}", err=True, color=color)
    if place is not None:
        click.echo(place, err=True)
    return exit_code


def _with_resource(error: ExpressionError) -> str:
    """The error, and the resource whose data it is about, which only the user's own terminal may show."""
    resource_id = getattr(error, "resource_id", None)
    return f"{error} (resource {resource_id})" if resource_id else str(error)


def _place(error: ExpressionError) -> str:
    width = min(shutil.get_terminal_size((MOST_COLUMNS, 1)).columns, MOST_COLUMNS)
    lines = caret(error.expression, error.start, error.end, width - len(INDENT)).split("\n")
    return "\n".join(INDENT + line for line in lines)


def _usage(error: click.ClickException) -> str:
    message = error.format_message()
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return message
    return f"{message}{'' if message.endswith(('.', '?')) else '.'} Try: {context.command_path} --help"


def _print_everything() -> None:
    """Escape what standard output's encoding (ASCII, say) does not have, as standard error does by itself."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Let Python's own last flush of standard output go nowhere, since where it should go is broken."""
    try:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)
    except (OSError, ValueError):
        pass


def _log_one_line_each() -> None:
    """What libraries log (an exporter whose collector is away, say) as one warning each, without tracebacks."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"warning: {printable(record.getMessage())}"


if __name__ == "__main__":
    sys.exit(main())

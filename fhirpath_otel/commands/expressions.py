"""The expressions that a command was given: as arguments, and in a file."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from fhirpath_otel.errors import UsageError

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Expression:
    """`place` is the file and line (1-based) it was read from, None for an argument."""

    text: str
    place: str | None = None


def read_expressions(path: str) -> list[Expression]:
    """The expressions of a file, one a line; `-` is standard input.

    Blank lines and lines that begin with `#` or with FHIRPath's own `//` are left out; a `//` after an expression is
    the parser's business, and `#` elsewhere is part of the expression. Raises UsageError for a file that cannot be
    read as UTF-8 text.
    """
    try:
        content = sys.stdin.buffer.read() if path == STANDARD_INPUT else Path(path).read_bytes()
        lines = content.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}; --file takes a text file with one expression a line"
        ) from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: not UTF-8 text; --file takes one expression a line") from error
    name = "standard input" if path == STANDARD_INPUT else path
    return [
        Expression(line.strip(), f"{name}:{number}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith(("#", "//"))
    ]

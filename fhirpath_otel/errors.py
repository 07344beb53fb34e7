"""The exceptions of this package: each says what was wrong, where, and what to do.

Messages are for the person at the terminal. They can quote an expression or a file, so they never enter
telemetry: spans and metrics carry `error_type` only.
"""

from __future__ import annotations

import os


class FhirpathOtelError(Exception):
    """Base of everything this package raises on purpose.

    `exit_code` is what the command line ends with: 1 for a failure, 2 for wrong usage.
    `error_type` is the low-cardinality value of the OpenTelemetry attribute `error.type`.
    """

    exit_code = 1
    error_type = "failure"


class UsageError(FhirpathOtelError):
    """The call itself is wrong: a missing argument, an unknown URL scheme, a path that is not there."""

    exit_code = 2
    error_type = "usage"


class ExpressionError(FhirpathOtelError):
    """Something about one place in the text of an expression.

    `start` and `end` are 0-based offsets of characters, half open. `hint` says what to do, where that is known.
    """

    error_type = "expression"

    def __init__(
        self, message: str, expression: str, start: int, end: int | None = None, hint: str | None = None
    ) -> None:
        self.message = message
        self.expression = expression
        self.start = start
        self.end = max(start + 1, end if end is not None else start + 1)
        self.hint = hint
        place = f"{message} at {start}"
        super().__init__(f"{place}; {hint}" if hint else place)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.message, self.expression, self.start, self.end, self.hint))


class ExpressionSyntaxError(ExpressionError):
    """The text is not FHIRPath (grammar of FHIRPath 2.0.0), or exceeds a limit of the parser."""

    exit_code = 2
    error_type = "syntax"


class ExpressionTypeError(ExpressionError):
    """The text is FHIRPath, but cannot be meant: unknown element or function, impossible types."""

    exit_code = 2
    error_type = "type"


class EvaluationError(ExpressionError):
    """The data broke a rule of the specification, such as several items where one is required.

    `resource_id` is the id of the resource where that is known. It is no part of the message, which others may record.
    """

    error_type = "evaluation"
    resource_id: str | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return (*super().__reduce__(), {"resource_id": self.resource_id})


class DatabaseError(FhirpathOtelError):
    """A database cannot be opened, read or written as asked."""

    error_type = "database"


class LoadError(FhirpathOtelError):
    """An input cannot be loaded; nothing of this run was stored. `line` is 1-based, None for a whole file."""

    error_type = "load"

    def __init__(self, message: str, path: str | os.PathLike[str], line: int | None = None) -> None:
        self.message = message
        self.path = os.fspath(path)
        self.line = line
        place = self.path if line is None else f"{self.path}:{line}"
        super().__init__(f"{place}: {message}")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.message, self.path, self.line))

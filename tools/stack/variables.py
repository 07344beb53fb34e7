"""What people set, checked before anything is started: the programs' own words name no variable, if they object."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from tools.stack.failures import StackFailure

_Form = tuple[Callable[[str], object], str]


def _at_least(minimum: int) -> _Form:
    return (
        lambda text: text.isascii() and text.isdigit() and int(text) >= minimum,
        f"a whole number from {minimum} on",
    )


def _looks_like(pattern: str, what: str) -> _Form:
    return re.compile(pattern).fullmatch, what


# A duration without its unit is nanoseconds to the programs, and they take it.
_DURATION = _looks_like(r"(\d+(\.\d+)?(ms|s|m|h))+", "a number with its unit, such as 500ms, 5s or 72h")
FORMS = {
    "DECISION_WAIT": _DURATION,
    "JAEGER_RETENTION": _DURATION,
    "SLOW_THRESHOLD_MS": _at_least(1),
    "OTELCOL_MEMORY_LIMIT_MIB": _at_least(1),
    # What the queue hands over at once has to fit into it: `sending_queue.batch.min_size`.
    "OTELCOL_QUEUE_SPANS": _at_least(2048),
    "BASELINE_PERCENTAGE": _looks_like(r"100(\.0+)?|\d{1,2}(\.\d+)?", "a number from 0 to 100"),
    "JAEGER_OTLP_INSECURE": _looks_like(r"true|false", "true or false"),
    "OTELCOL_DIMENSIONS": _looks_like(
        r'"[^"\\]+"(, *"[^"\\]+")*', """names in double quotes, such as '"measure", "tenant"'"""
    ),
}


def refuse_wrong_values(variables: Mapping[str, str]) -> None:
    """Raises StackFailure if a variable of docs/stack.md has not the form that its program needs."""
    wrong = [
        f"  {name}={variables[name]}: needs {form}"
        for name, (fits, form) in FORMS.items()
        if variables.get(name) and not fits(variables[name])
    ]
    if wrong:
        raise StackFailure("nothing was started, because of these variables:\n" + "\n".join(wrong))

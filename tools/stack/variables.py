"""What people set, checked before anything is started: the programs' own words name no variable, if they object."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tools.stack.failures import StackFailure

# A duration without its unit is nanoseconds to the programs, and they take it.
_DURATION = (r"(\d+(\.\d+)?(ms|s|m|h))+", "a number with its unit, such as 500ms, 5s or 72h")
_COUNT = (r"[1-9]\d*", "a whole number above 0")
_FORMS = {
    "DECISION_WAIT": _DURATION,
    "JAEGER_RETENTION": _DURATION,
    "SLOW_THRESHOLD_MS": _COUNT,
    "OTELCOL_MEMORY_LIMIT_MIB": _COUNT,
    "OTELCOL_QUEUE_SPANS": _COUNT,
    "BASELINE_PERCENTAGE": (r"100(\.0+)?|\d{1,2}(\.\d+)?", "a number from 0 to 100"),
    "JAEGER_OTLP_INSECURE": (r"true|false", "true or false"),
    "OTELCOL_DIMENSIONS": (
        r'"[^"\\]+"(, *"[^"\\]+")*',
        """names in double quotes, such as '"measure", "tenant"'""",
    ),
}


def refuse_wrong_values(variables: Mapping[str, str]) -> None:
    """Raises StackFailure if a variable of docs/stack.md has not the form that its program needs."""
    wrong = [
        f"  {name}={variables[name]}: needs {form}"
        for name, (pattern, form) in _FORMS.items()
        if variables.get(name) and not re.fullmatch(pattern, variables[name])
    ]
    if wrong:
        raise StackFailure("nothing was started, because of these variables:\n" + "\n".join(wrong))

"""The table of functions and operators that goes before fhirpathpy's own, in its form.

Each gets the context, the input (or left operand) and its arguments, as fhirpathpy's own do.
"""

from __future__ import annotations

from typing import Any

from fhirpath_otel.evaluator.memory import boundaries, conversions, filters, mathematics, operators, strings
from fhirpath_otel.evaluator.model import Model


def invocations(model: Model) -> dict[str, dict[str, Any]]:
    """What fhirpathpy has wrong, or not at all."""
    return {
        **operators.invocations(),
        **filters.invocations(model),
        **conversions.invocations(model),
        **mathematics.invocations(),
        **strings.invocations(),
        "lowBoundary": {"fn": boundaries.low_boundary, "arity": {0: [], 1: ["Integer"]}},
        "highBoundary": {"fn": boundaries.high_boundary, "arity": {0: [], 1: ["Integer"]}},
        "precision": {"fn": boundaries.precision},
    }

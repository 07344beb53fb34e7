"""What the operators of a plan give, as comparison and arithmetic see it."""

from __future__ import annotations

from fhirpath_otel.evaluator.model import SYSTEM_TYPES
from fhirpath_otel.evaluator.plan import Operator

_FAMILIES = {
    "String": "String",
    "Boolean": "Boolean",
    "Integer": "Number",
    "Decimal": "Number",
    "Date": "Date",
}


def family(operator: Operator) -> str | None:
    """String, Boolean, Number or Date where all types agree on one; None otherwise."""
    names = {
        kind[7:] if kind.startswith("System.") else SYSTEM_TYPES.get(kind, "") for kind in operator.types
    }
    families = {_FAMILIES.get(name) for name in names}
    return families.pop() if len(families) == 1 else None


def is_uniform(operator: Operator) -> bool:
    """Whether all its types are one, or primitives that are stored and read back alike, such as code and string."""
    return len(operator.types) < 2 or (len(system_types(operator)) == 1 and family(operator) is not None)


def is_integer(operator: Operator) -> bool:
    """Whether FHIRPath calls the number an Integer, not a Decimal."""
    return system_types(operator) == {"System.Integer"}


def system_types(operator: Operator) -> set[str]:
    """The System types that its types convert to."""
    return {
        kind if kind.startswith("System.") else f"System.{SYSTEM_TYPES.get(kind)}" for kind in operator.types
    }

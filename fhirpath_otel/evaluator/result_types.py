"""What the type checker can say about an expression before any data is seen: types and cardinality."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fhirpath_otel.evaluator.model import SYSTEM_TYPES

SYSTEM = "System."
SYSTEM_NAMES = frozenset(
    ("Any", "Boolean", "Date", "DateTime", "Decimal", "Integer", "Long", "Quantity", "String", "Time")
)

# FHIR and System types by the System type that operators and functions see in them; a type that is not here is
# complex. Money is no Quantity in R4: https://hl7.org/fhir/R4/fhirpath.html#quantity
_QUANTITIES = ("Quantity", "Age", "Count", "Distance", "Duration")
_SEEN_AS = {
    **SYSTEM_TYPES,
    **dict.fromkeys(_QUANTITIES, "Quantity"),
    **{SYSTEM + name: name for name in SYSTEM_NAMES},
}

_MOST_NAMED = 12


@dataclass(frozen=True, slots=True)
class ResultType:
    """The types that the items of a collection can have, and whether there can be several.

    FHIR types go by their names, System types by theirs with `System.` before it. `types` is None where nothing is
    known, and empty for a collection that is always empty.
    """

    types: frozenset[str] | None
    many: bool

    def __str__(self) -> str:
        return f"{describe(self.types)} {'[0..*]' if self.many else '[0..1]'}"


def one_of(*types: str) -> ResultType:
    """At most one item, of one of these types."""
    return ResultType(frozenset(types), many=False)


EMPTY = one_of()
BOOLEAN = one_of("System.Boolean")
INTEGER = one_of("System.Integer")
STRING = one_of("System.String")
UNKNOWN = ResultType(None, many=True)


def union(results: Iterable[ResultType]) -> ResultType:
    """Several collections as one."""
    types: set[str] = set()
    known = True
    for result in results:
        if result.types is None:
            known = False
        else:
            types |= result.types
    return ResultType(frozenset(types) if known else None, many=True)


def system_type(type_name: str) -> str:
    """How operators see a type: `code` as `String`, `Age` as `Quantity`; a complex type as itself."""
    return _SEEN_AS.get(type_name, type_name)


def system_types(types: frozenset[str]) -> set[str]:
    """`system_type` of each."""
    return {_SEEN_AS.get(name, name) for name in types}


def converted(types: frozenset[str]) -> frozenset[str]:
    """The System types that the primitive types and quantities among these convert to."""
    return frozenset(SYSTEM + _SEEN_AS[name] for name in types if name in _SEEN_AS)


def describe(types: frozenset[str] | None) -> str:
    """The types in words, for messages: `HumanName`; `Period or dateTime`; `one of 51 types`."""
    if types is None:
        return "unknown"
    if not types:
        return "empty"
    if len(types) > _MOST_NAMED:
        return f"one of {len(types)} types"
    names = sorted({name.removeprefix(SYSTEM) for name in types})
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))

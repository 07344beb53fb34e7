"""Which types the operators of FHIRPath 2.0.0 take, and what they give (https://hl7.org/fhirpath/N1/#operations).

Types are System types here, as `system_type` sees the FHIR ones. Implicit conversions are in the tables: Integer to
Decimal to Quantity, and Date to DateTime.
"""

from __future__ import annotations

from fhirpath_otel.evaluator.lexer import CALENDAR_UNITS
from fhirpath_otel.evaluator.result_types import SYSTEM, system_types

NUMBERS = ("Integer", "Long", "Decimal")
TEMPORALS = ("Date", "DateTime", "Time")

LOGIC = frozenset(("and", "or", "xor", "implies"))
EQUALITY = frozenset(("=", "!=", "~", "!~"))
MEMBERSHIP = frozenset(("in", "contains"))
INEQUALITY = frozenset(("<", "<=", ">", ">="))

ADDABLE_UNITS = CALENDAR_UNITS | {"ms", "s", "min", "h", "d", "wk"}
"""The units in quotes that may be added to a date or time: a UCUM month or year is not a calendar's.

https://hl7.org/fhirpath/N1/#datetime-arithmetic, as the official suite reads it
"""

_Table = dict[tuple[str, str], str]


def _on_numbers(operator: str) -> _Table:
    table = {}
    for i, left in enumerate(NUMBERS):
        for j, right in enumerate(NUMBERS):
            wider = NUMBERS[max(i, j)]
            if operator == "/":
                wider = "Decimal"
            elif operator == "div" and wider == "Decimal":
                wider = "Integer"
            table[left, right] = wider
    return table


_ON_STRINGS: _Table = {("String", "String"): "String"}
_ON_TEMPORALS: _Table = {(temporal, "Quantity"): temporal for temporal in TEMPORALS}
_ON_QUANTITIES: _Table = {
    ("Quantity", "Quantity"): "Quantity",
    **{("Quantity", number): "Quantity" for number in NUMBERS},
    **{(number, "Quantity"): "Quantity" for number in NUMBERS},
}

ARITHMETIC: dict[str, _Table] = {
    "+": {**_on_numbers("+"), **_ON_QUANTITIES, **_ON_STRINGS, **_ON_TEMPORALS},
    "-": {**_on_numbers("-"), **_ON_QUANTITIES, **_ON_TEMPORALS},
    "*": {**_on_numbers("*"), **_ON_QUANTITIES},
    "/": {**_on_numbers("/"), **_ON_QUANTITIES},
    "div": _on_numbers("div"),
    "mod": _on_numbers("mod"),
    "&": _ON_STRINGS,
}
"""Operator → (left, right) → result."""

COMPARABLE: frozenset[tuple[str, str]] = frozenset(
    (left, right)
    for group in ((*NUMBERS, "Quantity"), ("String",), ("Date", "DateTime"), ("Time",))
    for left in group
    for right in group
)
"""The pairs that `<`, `<=`, `>` and `>=` can order."""


def arithmetic(operator: str, left: frozenset[str], right: frozenset[str]) -> frozenset[str]:
    """The types that `left operator right` can have; empty where no pair of types fits."""
    table = ARITHMETIC[operator]
    pairs = ((one, other) for one in system_types(left) for other in system_types(right))
    return frozenset(SYSTEM + table[pair] for pair in pairs if pair in table)


def comparable(left: frozenset[str], right: frozenset[str]) -> bool:
    """Whether some pair of the types has an order."""
    others = system_types(right)
    return any((one, other) in COMPARABLE for one in system_types(left) for other in others)

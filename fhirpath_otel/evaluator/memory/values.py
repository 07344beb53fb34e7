"""What fhirpathpy's values are worth: when two are equal, which comes first, and what type they have.

fhirpathpy compares dates of two elements as text, only the first items of collections, and 1 with true.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from fhirpathpy.engine.nodes import FP_Quantity, ResourceNode

from fhirpath_otel.evaluator.memory import quantities, temporals
from fhirpath_otel.evaluator.memory.temporals import is_temporal, temporal
from fhirpath_otel.evaluator.model import SYSTEM_TYPES

UCUM = "http://unitsofmeasure.org"

# What a calendar duration is in UCUM: https://hl7.org/fhir/R4/fhirpath.html#quantity, read backwards.
_CALENDAR = {
    name: code.strip("'") for name, code in FP_Quantity.timeUnitsToUCUM.items() if not name.startswith("'")
}

_QUANTITIES = frozenset(("Quantity", "Age", "Count", "Distance", "Duration", "SimpleQuantity"))


def plain(item: Any) -> Any:
    """The value of an item: a node's data, or what is no node itself."""
    return item.data if isinstance(item, ResourceNode) else item


def convertible(item: Any) -> Any:
    """As `typed`; a malformed date or time is the text that it is."""
    value = typed(item)
    return plain(item) if value is None and isinstance(plain(item), str) else value


def with_value(items: Iterable[Any]) -> list[Any]:
    """The items without the primitives that have extensions only."""
    return [item for item in items if plain(item) is not None]


def typed(item: Any) -> Any:
    """The value of an item, with FHIR's dates, times and quantities as fhirpathpy has those of literals.

    None for a primitive that has extensions only, for a quantity without a number, and for a date or time that no
    calendar or clock shows.
    """
    if not isinstance(item, ResourceNode):
        return item
    data = item.data
    if isinstance(data, str):
        system = SYSTEM_TYPES.get(item.path or "")
        return temporal(data, system) if system in {"Date", "DateTime", "Time"} else data
    if item.path in _QUANTITIES and isinstance(data, dict):
        return None if data.get("value") is None else quantity(data)
    return data


def quantity(data: dict[str, Any]) -> FP_Quantity:
    """A FHIR Quantity as fhirpathpy's: its code where it is of UCUM, else its unit in words."""
    unit = data.get("code") if data.get("system") == UCUM else data.get("unit")
    return FP_Quantity(data["value"], f"'{unit or 1}'")


def as_json(item: Any) -> Any:
    """The item as a FHIR JSON value; None for a primitive that has extensions only."""
    value = plain(item)
    if isinstance(value, FP_Quantity):
        code = _CALENDAR.get(value.unit, value.unit.strip("'"))
        return {"value": value.value, "unit": value.unit.strip("'"), "system": UCUM, "code": code}
    if is_temporal(value):
        return value.asStr.removeprefix("T")
    return Decimal(str(value)) if isinstance(value, float) else value


def is_number(value: Any) -> bool:
    """Whether it is an Integer or a Decimal; Python's truth values are ints too."""
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def same(left: Any, right: Any) -> bool | None:
    """`=` of two items; None where it is not known: dates of different precision, a primitive without a value."""
    one, other = _alike(typed(left), typed(right))
    if one is None or other is None:
        return None
    if is_temporal(one) or is_temporal(other):
        return is_temporal(one) and is_temporal(other) and temporals.same(one, other)
    if isinstance(one, FP_Quantity) and isinstance(other, FP_Quantity):
        return quantities.same(one, other)
    if is_number(one) or is_number(other):
        return is_number(one) and is_number(other) and one == other
    return bool(one == other)


def _alike(one: Any, other: Any) -> tuple[Any, Any]:
    """Both as quantities where one is: the implicit conversion of numbers."""
    if isinstance(one, FP_Quantity) and is_number(other):
        return one, FP_Quantity(other, quantities.ONE)
    if is_number(one) and isinstance(other, FP_Quantity):
        return FP_Quantity(one, quantities.ONE), other
    return one, other


def equivalent(left: Any, right: Any) -> bool | None:
    """`~` of two items; None where units cannot be compared (https://hl7.org/fhirpath/N1/#equivalent)."""
    one, other = _alike(typed(left), typed(right))
    if is_temporal(one) or is_temporal(other):
        return is_temporal(one) and is_temporal(other) and temporals.same(one, other) is True
    if isinstance(one, FP_Quantity) and isinstance(other, FP_Quantity):
        return quantities.equivalent(one, other)
    if is_number(one) and is_number(other):
        return quantities.equivalent_numbers(one, other)
    return _equivalent_values(plain(one), plain(other))


def _equivalent_values(one: Any, other: Any) -> bool:
    """Of strings, truth values and what complex values are made of; lists in any order."""
    if isinstance(one, str) and isinstance(other, str):
        return one.casefold().split() == other.casefold().split()
    if is_number(one) and is_number(other):
        return quantities.equivalent_numbers(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equivalent_values(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return same_items(one, other, _equivalent_values)
    return type(one) is type(other) and bool(one == other)


def same_items(left: Iterable[Any], right: Iterable[Any], equal: Callable[[Any, Any], bool | None]) -> bool:
    """Whether each item has its own counterpart, in any order."""
    others = list(right)
    for item in left:
        position = next((at for at, other in enumerate(others) if equal(item, other)), None)
        if position is None:
            return False
        del others[position]
    return not others


def order_of(left: Any, right: Any) -> int | None:
    """-1, 0 or 1 as `left` comes before `right`; None where it is not known. Raises TypeError without an order."""
    one, other = _alike(typed(left), typed(right))
    if one is None or other is None:
        return None
    if is_temporal(one) or is_temporal(other):
        return temporals.order(one, other)
    if isinstance(one, FP_Quantity) and isinstance(other, FP_Quantity):
        return quantities.order(one, other)
    if is_number(one) and is_number(other):
        return _sign(one, other)
    if isinstance(one, str) and isinstance(other, str):
        return _sign(one, other)
    raise TypeError(f"{type(one).__name__} and {type(other).__name__} have no order")


def _sign(one: Any, other: Any) -> int:
    return int(one > other) - int(one < other)


def distinct(items: Iterable[Any]) -> list[Any]:
    """The items without repetitions, each where it comes first."""
    found: dict[Any, Any] = {}
    for item in items:
        found.setdefault(_key(item), item)
    return list(found.values())


def _key(item: Any) -> tuple[str, Any]:
    """Equal for items that are equal."""
    value = typed(item) if isinstance(plain(item), dict) else plain(item)
    if isinstance(value, bool):
        return "boolean", value
    if is_number(value):
        return "number", value
    if isinstance(value, str):
        return "string", value
    if is_temporal(value):
        return "string", value.asStr
    if isinstance(value, FP_Quantity):
        return "quantity", quantities.in_base(value)
    return "complex", json.dumps(value, sort_keys=True, default=lambda number: str(number.normalize()))

"""What fhirpathpy's values are worth: when two are equal, which comes first, and what type they have.

fhirpathpy compares dates of two elements as text, only the first items of collections, and 1 with true.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from fhirpathpy.engine.nodes import FP_Quantity, ResourceNode

from fhirpath_otel.evaluator.memory import temporals
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


def typed(item: Any) -> Any:
    """The value of an item, with FHIR's dates, times and quantities as fhirpathpy has those of literals."""
    if not isinstance(item, ResourceNode):
        return item
    data = item.data
    if isinstance(data, str):
        system = SYSTEM_TYPES.get(item.path or "")
        return temporal(data, system) if system in {"Date", "DateTime", "Time"} else data
    if item.path in _QUANTITIES and isinstance(data, dict) and data.get("value") is not None:
        return quantity(data)
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
    one, other = typed(left), typed(right)
    if one is None or other is None:
        return None
    if is_temporal(one) or is_temporal(other):
        return temporals.same(one, other)
    if isinstance(one, FP_Quantity) and isinstance(other, FP_Quantity):
        return _same_quantities(one, other)
    if is_number(one) or is_number(other):
        return is_number(one) and is_number(other) and one == other
    return bool(one == other)


def _same_quantities(one: FP_Quantity, other: FP_Quantity) -> bool | None:
    """A calendar year or month is no fixed number of days, as UCUM's are: nobody knows whether they are equal."""
    units = {one.unit, other.unit}
    if units & {"'a'", "'mo'"} and units & {"year", "years", "month", "months"}:
        return None
    calendar = other.unit in FP_Quantity.mapUCUMCodeToTimeUnits.values()
    return bool(one.deep_equal(other)) if calendar else bool(one == other)


def order_of(left: Any, right: Any) -> int | None:
    """-1, 0 or 1 as `left` comes before `right`; None where it is not known. Raises TypeError without an order."""
    one, other = typed(left), typed(right)
    if one is None or other is None:
        return None
    if is_temporal(one) or is_temporal(other):
        return temporals.order(one, other)
    if isinstance(one, FP_Quantity) and isinstance(other, FP_Quantity):
        if one.unit != other.unit:
            one = FP_Quantity.conv_unit_to(one.unit, one.value, other.unit)
        return None if one is None else _sign(one.value, other.value)
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
    value = plain(item)
    if isinstance(value, bool):
        return "boolean", value
    if is_number(value):
        return "number", value
    if isinstance(value, str):
        return "string", value
    if is_temporal(value):
        return "string", value.asStr
    if isinstance(value, FP_Quantity):
        return "quantity", (value.value, value.unit)
    return "complex", json.dumps(value, sort_keys=True, default=lambda number: str(number.normalize()))

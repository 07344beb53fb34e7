"""What fhirpathpy's values are worth: when two are equal, which comes first, and what type they have.

fhirpathpy compares dates of two elements as text, only the first items of collections, and 1 with true.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from fhirpathpy.engine.nodes import FP_DateTime, FP_Quantity, FP_Time, ResourceNode

from fhirpath_otel.evaluator.model import SYSTEM_TYPES

UCUM = "http://unitsofmeasure.org"

# What a calendar duration is in UCUM: https://hl7.org/fhir/R4/fhirpath.html#quantity, read backwards.
_CALENDAR = {
    name: code.strip("'") for name, code in FP_Quantity.timeUnitsToUCUM.items() if not name.startswith("'")
}

_TEMPORAL = re.compile(
    r"(?:(\d{4})(?:-(\d\d)(?:-(\d\d))?)?)?"
    r"(?:T?(\d\d)(?::(\d\d)(?::(\d\d(?:\.\d+)?))?)?(Z|[+-]\d\d:\d\d)?)?"
)
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
        if system in {"Date", "DateTime"}:
            return FP_DateTime(data) or data
        return FP_Time(data) or data if system == "Time" else data
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
    if isinstance(value, FP_DateTime | FP_Time):
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
    if isinstance(one, FP_DateTime | FP_Time) or isinstance(other, FP_DateTime | FP_Time):
        return _same_temporals(one, other)
    if isinstance(one, FP_Quantity) and isinstance(other, FP_Quantity):
        return bool(one.deep_equal(other)) if _is_calendar(other) else bool(one == other)
    if is_number(one) or is_number(other):
        return is_number(one) and is_number(other) and one == other
    return bool(one == other)


def _same_temporals(one: Any, other: Any) -> bool | None:
    parts, other_parts = _parts(one), _parts(other)
    if parts is None or other_parts is None or (parts[0][0] is None) != (other_parts[0][0] is None):
        return False  # a date and a time, or no date at all
    order = order_of_temporals(one, other)
    return None if order is None else order == 0


def _is_calendar(value: FP_Quantity) -> bool:
    return value.unit in FP_Quantity.mapUCUMCodeToTimeUnits.values()


def order_of(left: Any, right: Any) -> int | None:
    """-1, 0 or 1 as `left` comes before `right`; None where it is not known. Raises TypeError without an order."""
    one, other = typed(left), typed(right)
    if one is None or other is None:
        return None
    if isinstance(one, FP_DateTime | FP_Time) or isinstance(other, FP_DateTime | FP_Time):
        return order_of_temporals(one, other)
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


def order_of_temporals(left: Any, right: Any) -> int | None:
    """Dates, times or their texts, part by part; None where one stops, or only one has a time zone.

    https://hl7.org/fhirpath/N1/#equals, Date/Time Equality; seconds and their fraction are one part.
    """
    one, other = _parts(left), _parts(right)
    if one is None or other is None:
        raise TypeError("not a date or time")
    (parts, zone), (other_parts, other_zone) = one, other
    if parts[3] is not None and other_parts[3] is not None and (zone is None) != (other_zone is None):
        return None
    if zone and other_zone:
        parts, other_parts = _in_utc(parts, zone), _in_utc(other_parts, other_zone)
    for part, other_part in zip(parts, other_parts, strict=True):
        if part is None and other_part is None:
            continue
        if part is None or other_part is None:
            return None
        if part != other_part:
            return _sign(part, other_part)
    return 0


def _parts(value: Any) -> tuple[list[Decimal | None], str | None] | None:
    """Year, month, day, hour, minute and second, as far as they are given, and the time zone."""
    text = value if isinstance(value, str) else getattr(value, "asStr", None)
    found = _TEMPORAL.fullmatch(text) if text else None
    if found is None:
        return None
    *parts, zone = found.groups()
    return [None if part is None else Decimal(part) for part in parts], zone


def _in_utc(parts: list[Decimal | None], zone: str) -> list[Decimal | None]:
    """The same moment, whose time zone is `Z` or an offset, at offset zero."""
    *moment, minute, second = parts
    if zone == "Z" or None in moment:
        return parts
    year, month, day, hour = (int(part or 0) for part in moment)
    local = datetime(year, month, day, hour, int(minute or 0), tzinfo=timezone.utc)
    offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[4:]))
    utc = local - offset if zone[0] == "+" else local + offset
    moved = [Decimal(part) for part in (utc.year, utc.month, utc.day, utc.hour)]
    return [*moved, None if minute is None else Decimal(utc.minute), second]


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
    if isinstance(value, FP_DateTime | FP_Time):
        return "string", value.asStr
    if isinstance(value, FP_Quantity):
        return "quantity", (value.value, value.unit)
    return "complex", json.dumps(value, sort_keys=True, default=lambda number: str(number.normalize()))

"""Quantities in exact decimals: metric prefixes, durations and pounds.

fhirpathpy converts through binary floating point, and rounds grams to whole ones. Units that are neither equal nor
known here to measure the same have no common answer: empty, as the specification has it for units of different
dimensions.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Any

from fhirpathpy.engine.nodes import FP_Quantity

ONE = "'1'"
"""The unit of a number."""

STEP = Decimal("1e-8")
"""The specification's step size of decimals."""

_PREFIXES = {
    "Y": 24,
    "Z": 21,
    "E": 18,
    "P": 15,
    "T": 12,
    "G": 9,
    "M": 6,
    "k": 3,
    "h": 2,
    "da": 1,
    "d": -1,
    "c": -2,
    "m": -3,
    "u": -6,
    "n": -9,
    "p": -12,
    "f": -15,
    "a": -18,
    "z": -21,
    "y": -24,
}
_METRIC = frozenset(
    ("g", "m", "L", "s", "mol", "Pa", "J", "W", "Hz", "N", "V", "A", "K", "eq", "osm", "U", "[iU]", "m[Hg]")
)
_SAME = {"l": "L", "[IU]": "[iU]"}
_DURATIONS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800}
_OTHERS: dict[str, tuple[Decimal, str]] = {
    "[lb_av]": (Decimal("453.59237"), "g"),
    "a": (Decimal(12), "'mo'"),
    "mo": (Decimal(1), "'mo'"),
    "min": (Decimal(60), "s"),
    "h": (Decimal(3_600), "s"),
    "d": (Decimal(86_400), "s"),
    "wk": (Decimal(604_800), "s"),
}
_CALENDAR: dict[str, tuple[Decimal, str]] = {
    "year": (Decimal(12), "month"),
    "month": (Decimal(1), "month"),
    "millisecond": (Decimal("0.001"), "s"),
    **{name: (Decimal(seconds), "s") for name, seconds in _DURATIONS.items()},
}


def in_base(quantity: FP_Quantity) -> tuple[Decimal, str]:
    """The value in a unit that all units of the same dimension share; of an unknown unit the value as it is."""
    factor, base = _scale(quantity.unit)
    return Decimal(quantity.value) * factor, base


def same(one: FP_Quantity, other: FP_Quantity) -> bool | None:
    """Equality; None of units that cannot be compared."""
    (value, base), (other_value, other_base) = in_base(one), in_base(other)
    return value == other_value if base == other_base else None


def order(one: FP_Quantity, other: FP_Quantity) -> int | None:
    """-1, 0 or 1; None of units that cannot be compared."""
    (value, base), (other_value, other_base) = in_base(one), in_base(other)
    return None if base != other_base else int(value > other_value) - int(value < other_value)


def equivalent(one: FP_Quantity, other: FP_Quantity) -> bool | None:
    """Equality in the coarser unit, rounded to the places of the less precise value.

    There a calendar's year and month are those of UCUM. https://hl7.org/fhirpath/N1/#quantity
    """
    (value, base), (other_value, other_base) = in_base(one), in_base(other)
    if base.replace("month", "'mo'") != other_base.replace("month", "'mo'"):
        return None
    coarser = max(_scale(one.unit)[0], _scale(other.unit)[0])
    return equivalent_numbers(value / coarser, other_value / coarser)


def equivalent_numbers(one: Any, other: Any) -> bool:
    """Equality after rounding to the places of the less precise; zeros at the end are no places."""
    places = min(_places(Decimal(one)), _places(Decimal(other)))
    step = Decimal(1).scaleb(-places)
    return Decimal(one).quantize(step, ROUND_HALF_UP) == Decimal(other).quantize(step, ROUND_HALF_UP)


def _places(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


def converted(quantity: FP_Quantity, unit: str) -> FP_Quantity | None:
    """The quantity in another unit; None where that is not known to measure the same."""
    value, base = in_base(quantity)
    factor, other_base = _scale(unit)
    return FP_Quantity(_quotient(value, factor), unit) if base == other_base else None


def finer_unit(one: FP_Quantity, other: FP_Quantity) -> str:
    """The unit of a sum. https://hl7.org/fhirpath/N1/#addition"""
    return str(one.unit if _scale(one.unit)[0] <= _scale(other.unit)[0] else other.unit)


def _quotient(value: Decimal, factor: Decimal) -> Decimal:
    """Exact where decimals can be."""
    quotient = value / factor
    return quotient if quotient * factor == value else quotient.quantize(STEP, ROUND_HALF_UP)


@lru_cache(maxsize=1_000)
def _scale(unit: str) -> tuple[Decimal, str]:
    """A unit as so many of the base unit of its dimension; an unknown one is its own. Codes stand in quotes."""
    if not unit.startswith("'"):
        return _CALENDAR.get(unit.removesuffix("s"), (Decimal(1), unit))
    code = unit.strip("'")
    if code in _OTHERS:
        return _OTHERS[code]
    for prefix, exponent in {"": 0, **_PREFIXES}.items():
        base = code.removeprefix(prefix)
        base = _SAME.get(base, base)
        if base in _METRIC and code.startswith(prefix):
            return Decimal(1).scaleb(exponent), base
    return Decimal(1), unit

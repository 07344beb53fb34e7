"""Equality, order, membership and arithmetic.

fhirpathpy compares the first items of collections only, has no order of quantities, and lets an Integer grow.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from fhirpathpy.engine.nodes import FP_Quantity

from fhirpath_otel.evaluator.memory.quantities import ONE, STEP, converted, finer_unit
from fhirpath_otel.evaluator.memory.temporals import is_temporal, shifted
from fhirpath_otel.evaluator.memory.values import equivalent, is_number, order_of, same, same_items, typed

Items = list[Any]
Context = dict[str, Any]

_LEAST_INTEGER, _GREATEST_INTEGER = -(2**31), 2**31 - 1


def invocations() -> dict[str, dict[str, Any]]:
    """Their rows of fhirpathpy's table."""
    functions: dict[str, Callable[[Context, Items, Items], Any]] = {
        "=": _equal,
        "!=": lambda context, left, right: _not(_equal(context, left, right)),
        "~": _equivalent,
        "!~": lambda context, left, right: _not(_equivalent(context, left, right)),
        "<": _ordered(lambda order: order < 0),
        "<=": _ordered(lambda order: order <= 0),
        ">": _ordered(lambda order: order > 0),
        ">=": _ordered(lambda order: order >= 0),
        "inOp": is_in,
        "containsOp": lambda context, collection, item: is_in(context, item, collection),
        **{symbol: _arithmetic(symbol, compute) for symbol, compute in _ON_NUMBERS.items()},
    }
    return {name: {"fn": function, "arity": {2: ["Any", "Any"]}} for name, function in functions.items()}


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _equal(_context: Context, left: Items, right: Items) -> bool | None:
    """https://hl7.org/fhirpath/N1/#equals: false where the counts differ, unknown where an item's equality is."""
    if not left or not right:
        return None
    if len(left) != len(right):
        return False
    known = [same(one, other) for one, other in zip(left, right, strict=True)]
    return False if False in known else None if None in known else True


def _equivalent(_context: Context, left: Items, right: Items) -> bool | None:
    """https://hl7.org/fhirpath/N1/#equivalent: in any order."""
    if len(left) == len(right) == 1:
        return equivalent(left[0], right[0])
    return len(left) == len(right) and same_items(left, right, equivalent)


def _ordered(holds: Callable[[int], bool]) -> Callable[[Context, Items, Items], bool | None]:
    def compare(_context: Context, left: Items, right: Items) -> bool | None:
        order = order_of(left[0], right[0]) if left and right else None
        return None if order is None else holds(order)

    return compare


def is_in(_context: Context, item: Items, collection: Items) -> bool | None:
    """Whether a collection has the item."""
    if not item or typed(item[0]) is None:
        return None  # nothing, or a primitive without a value
    return any(same(item[0], one) for one in collection)


def _arithmetic(symbol: str, compute: Callable[[Any, Any], Any]) -> Callable[[Context, Items, Items], Any]:
    def calculate(_context: Context, left: Items, right: Items) -> Any:
        one, other = (typed(items[0]) if items else None for items in (left, right))
        if one is None or other is None:
            return None
        if is_number(one) and is_number(other):
            return representable(compute(one, other))
        if symbol == "+" and isinstance(one, str) and isinstance(other, str):
            return one + other
        if symbol in {"+", "-"} and is_temporal(one) and isinstance(other, FP_Quantity):
            return shifted(one, other.value if symbol == "+" else -other.value, other.unit)
        return _of_quantities(symbol, _as_quantity(one), _as_quantity(other), compute)

    return calculate


def representable(value: Any) -> Any:
    """An Integer has 32 bits; beyond it is nothing (https://hl7.org/fhirpath/N1/#math). A Decimal loses its zeros."""
    if isinstance(value, int):
        return value if _LEAST_INTEGER <= value <= _GREATEST_INTEGER else None
    if value is None:
        return None
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value.normalize()


def negated(value: Any) -> Any:
    """The number or quantity with the other sign."""
    if isinstance(value, FP_Quantity):
        return FP_Quantity(-value.value, value.unit)
    if not is_number(value):
        raise TypeError("a sign is for numbers")
    return -value if isinstance(value, Decimal) else representable(-value)


def _quotient(one: Any, other: Any) -> Decimal | None:
    """Rounded half away from zero."""
    return None if other == 0 else (Decimal(one) / Decimal(other)).quantize(STEP, ROUND_HALF_UP)


def _whole_quotient(one: Any, other: Any) -> int | None:
    return None if other == 0 else int(Decimal(one) // Decimal(other))


def _remainder(one: Any, other: Any) -> Any:
    """Of the truncated division, so it has the sign of the dividend."""
    if other == 0:
        return None
    remainder = Decimal(one) % Decimal(other)
    return int(remainder) if isinstance(one, int) and isinstance(other, int) else remainder


_ON_NUMBERS: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda one, other: one + other,
    "-": lambda one, other: one - other,
    "*": lambda one, other: one * other,
    "/": _quotient,
    "div": _whole_quotient,
    "mod": _remainder,
}


def _as_quantity(value: Any) -> FP_Quantity:
    if isinstance(value, FP_Quantity):
        return value
    if not is_number(value):
        raise TypeError("neither a number nor a quantity")
    return FP_Quantity(value, ONE)


def _of_quantities(
    symbol: str, one: FP_Quantity, other: FP_Quantity, compute: Callable[[Any, Any], Any]
) -> FP_Quantity | None:
    """Sums of units that measure the same; products and quotients where no new unit comes about."""
    if symbol in {"+", "-"}:
        unit = finer_unit(one, other)
        both = converted(one, unit), converted(other, unit)
        if both[0] is None or both[1] is None:
            return None
        one, other = both
    else:
        found = unit_of(symbol, one, other)
        if found is None:
            raise TypeError("the unit of the result is not known")
        unit = found
    value = representable(compute(Decimal(one.value), Decimal(other.value)))
    return None if value is None else FP_Quantity(value, unit)


def unit_of(symbol: str, one: FP_Quantity, other: FP_Quantity) -> str | None:
    """The unit of a product or quotient; None where it would be a new one."""
    if symbol == "*" and ONE in {one.unit, other.unit}:
        return str(other.unit if one.unit == ONE else one.unit)
    if symbol == "/" and other.unit in {ONE, one.unit}:
        return str(one.unit if other.unit == ONE else ONE)
    return None

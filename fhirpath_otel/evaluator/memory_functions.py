"""The functions and operators that fhirpathpy has wrong, or not at all, in the form of its table of invocations.

Each gets the context, the input (or left operand) and its arguments, as fhirpathpy's own do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from fhirpathpy.engine.invocations import math
from fhirpathpy.engine.nodes import FP_DateTime, FP_Quantity, FP_Time, ResourceNode

from fhirpath_otel.evaluator.memory_values import distinct, is_number, order_of, plain, same, typed
from fhirpath_otel.evaluator.model import Model

Items = list[Any]
Context = dict[str, Any]
Criterion = Callable[[Any], Items]

_LEAST_INTEGER, _GREATEST_INTEGER = -(2**31), 2**31 - 1
_STEP = Decimal("1e-8")  # the specification's step size of decimals


def invocations(model: Model) -> dict[str, dict[str, Any]]:
    """The table that goes before fhirpathpy's own."""
    types = _Types(model)
    two_any = {2: ["Any", "Any"]}
    operators = {
        "=": _equal,
        "!=": _unequal,
        "<": _ordered(lambda order: order < 0),
        "<=": _ordered(lambda order: order <= 0),
        ">": _ordered(lambda order: order > 0),
        ">=": _ordered(lambda order: order >= 0),
        "inOp": _in,
        "containsOp": lambda context, collection, item: _in(context, item, collection),
    }
    arithmetic = {
        "+": lambda one, other: one + other,
        "-": lambda one, other: one - other,
        "*": lambda one, other: one * other,
        "/": _quotient,
        "div": lambda one, other: None if other == 0 else int(Decimal(one) // other),
        "mod": _remainder,
    }
    own = {"+": math.plus, "-": math.minus}
    type_test = {1: ["TypeSpecifier"]}, {2: ["Any", "TypeSpecifier"]}
    return {
        **{name: {"fn": function, "arity": two_any} for name, function in operators.items()},
        **{
            name: {"fn": _arithmetic(function, own.get(name)), "arity": two_any}
            for name, function in arithmetic.items()
        },
        "is": {"fn": types.is_, "arity": type_test[0]},
        "isOp": {"fn": types.is_, "arity": type_test[1]},
        "as": {"fn": types.of_type, "arity": type_test[0]},
        "asOp": {"fn": types.of_type, "arity": type_test[1]},
        "ofType": {"fn": types.of_type, "arity": type_test[0]},
        "type": {"fn": types.type, "arity": {0: []}},
        "where": {"fn": _where, "arity": {1: ["Expr"]}},
        "exists": {"fn": _exists, "arity": {0: [], 1: ["Expr"]}},
        "all": {"fn": _all, "arity": {1: ["Expr"]}},
        "select": {"fn": _select, "arity": {1: ["Expr"]}},
        "iif": {"fn": _iif, "arity": {2: ["Expr"] * 2, 3: ["Expr"] * 3}},
        "extension": {"fn": _extension, "arity": {1: ["String"]}},
        "distinct": {"fn": lambda _context, items: distinct(items)},
        "isDistinct": {"fn": lambda _context, items: len(distinct(items)) == len(items)},
        "union": {
            "fn": lambda _context, items, others: distinct([*items, *others]),
            "arity": {1: ["AnyAtRoot"]},
        },
        "hasValue": {"fn": _has_value},
        "toString": {"fn": _to_string},
        "single": {"fn": lambda _context, items: items},
        "round": {"fn": _round, "arity": {0: [], 1: ["Number"]}},
    }


# --- collections


def _truth(items: Items) -> bool:
    """Whether a criterion holds: our closures give it as true, false or nothing."""
    return items == [True]


def _where(context: Context, items: Items, criterion: Criterion) -> Items:
    return [item for item in _indexed(context, items) if _truth(criterion(item))]


def _exists(context: Context, items: Items, criterion: Criterion | None = None) -> bool:
    if criterion is None:
        return bool(items)
    return bool(_where(context, items, criterion))


def _all(context: Context, items: Items, criterion: Criterion) -> bool:
    return len(_where(context, items, criterion)) == len(items)


def _select(context: Context, items: Items, projection: Criterion) -> Items:
    return [found for item in _indexed(context, items) for found in projection(item)]


def _indexed(context: Context, items: Items) -> Iterator[Any]:
    for index, item in enumerate(items):
        context["$index"] = index
        yield item


def _iif(
    _context: Context, items: Items, criterion: Criterion, then: Criterion, otherwise: Criterion | None = None
) -> Items:
    if _truth(criterion(items)):
        return then(items)
    return otherwise(items) if otherwise else []


def _extension(_context: Context, items: Items, url: Any) -> Items:
    return [
        ResourceNode(extension, "Extension")
        for item in items
        if isinstance(item, ResourceNode)
        for extension in _with_extensions(item).get("extension") or ()
        if extension.get("url") == url
    ]


def _with_extensions(node: ResourceNode) -> Mapping[str, Any]:
    """What carries the extensions: a complex value itself, or what stands beside a primitive."""
    return node.data if isinstance(node.data, Mapping) else node._data or {}  # noqa: SLF001  as in memory_tree


# --- equality, order and arithmetic


def _equal(_context: Context, left: Items, right: Items) -> bool | None:
    """https://hl7.org/fhirpath/N1/#equals: false where the counts differ, unknown where an item's equality is."""
    if not left or not right:
        return None
    if len(left) != len(right):
        return False
    known = [same(one, other) for one, other in zip(left, right, strict=True)]
    return False if False in known else None if None in known else True


def _unequal(context: Context, left: Items, right: Items) -> bool | None:
    equal = _equal(context, left, right)
    return None if equal is None else not equal


def _ordered(holds: Callable[[int], bool]) -> Callable[[Context, Items, Items], bool | None]:
    def compare(_context: Context, left: Items, right: Items) -> bool | None:
        order = order_of(left[0], right[0]) if left and right else None
        return None if order is None else holds(order)

    return compare


def _in(_context: Context, item: Items, collection: Items) -> bool | None:
    return any(same(item[0], one) for one in collection) if item else None


def _arithmetic(
    compute: Callable[[Any, Any], Any], on_others: Callable[..., Any] | None = None
) -> Callable[[Context, Items, Items], Any]:
    """An operator on numbers; fhirpathpy's own, where it has one, does the rest (strings, dates)."""

    def calculate(context: Context, left: Items, right: Items) -> Any:
        if not left or not right:
            return None
        one, other = typed(left[0]), typed(right[0])
        if one is None or other is None:
            return None
        if is_number(one) and is_number(other):
            return _representable(compute(one, other))
        if on_others is None:
            raise TypeError("not a number")
        return on_others(context, [one], [other])

    return calculate


def _representable(value: Any) -> Any:
    """An Integer has 32 bits; beyond it is nothing (https://hl7.org/fhirpath/N1/#math). A Decimal loses its zeros."""
    if isinstance(value, int):
        return value if _LEAST_INTEGER <= value <= _GREATEST_INTEGER else None
    return None if value is None else trimmed(value)


def trimmed(value: Decimal) -> Decimal:
    """The number without trailing zeros, and without an exponent."""
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value.normalize()


def _quotient(one: Any, other: Any) -> Decimal | None:
    """Rounded half away from zero."""
    return None if other == 0 else (Decimal(one) / Decimal(other)).quantize(_STEP, ROUND_HALF_UP)


def _remainder(one: Any, other: Any) -> Any:
    """Of the truncated division, so it has the sign of the dividend."""
    if other == 0:
        return None
    remainder = Decimal(one) % Decimal(other)
    return int(remainder) if isinstance(one, int) and isinstance(other, int) else remainder


# --- types and values


class _Types:
    """The type tests, over FHIR's hierarchy and the System types."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def is_(self, _context: Context, items: Items, wanted: Any) -> bool | None:
        return self._matches(items[0], wanted) if items else None

    def of_type(self, _context: Context, items: Items, wanted: Any) -> Items:
        return [item for item in items if self._matches(item, wanted)]

    def type(self, _context: Context, items: Items) -> Items:
        return [self._described(type_of(item)) for item in items]

    def _matches(self, item: Any, wanted: Any) -> bool:
        kind = type_of(item)
        if kind.startswith("System."):
            return wanted.namespace != "FHIR" and wanted.name in {kind.removeprefix("System."), "Any"}
        return wanted.namespace != "System" and self._model.is_a(kind, wanted.name)

    def _described(self, kind: str) -> dict[str, str]:
        if kind.startswith("System."):
            return {"namespace": "System", "name": kind.removeprefix("System.")}
        return {"namespace": "FHIR", "name": "BackboneElement" if "." in kind else kind}


def type_of(item: Any) -> str:
    """A FHIR type, the path of a backbone element, or `System.` and a name; empty if it cannot be known."""
    if isinstance(item, ResourceNode) and (item.path or isinstance(item.data, Mapping)):
        return item.path or ""
    value = plain(item)
    kinds = {bool: "Boolean", int: "Integer", Decimal: "Decimal", str: "String", FP_Quantity: "Quantity"}
    name = getattr(value, "system_type", None) or kinds.get(type(value))
    if name is None:
        name = "Time" if isinstance(value, FP_Time) else "DateTime" if isinstance(value, FP_DateTime) else ""
    return f"System.{name}" if name else ""


def _has_value(_context: Context, items: Items) -> bool:
    """https://hl7.org/fhir/R4/fhirpath.html#functions: one primitive that has more than extensions."""
    return len(items) == 1 and plain(items[0]) is not None and not isinstance(plain(items[0]), Mapping)


def _to_string(_context: Context, values: Items) -> str | None:
    value = values[0] if values else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return f"{value:f}"
    if value is None or isinstance(value, Mapping):
        return None
    return str(getattr(value, "asStr", value))


def _round(_context: Context, items: Items, places: Any = 0) -> Decimal | None:
    if not items or places == []:
        return None
    return Decimal(plain(items[0])).quantize(Decimal(1).scaleb(-plain(places)), ROUND_HALF_UP)

"""Type tests and conversions: fhirpathpy's depend on what was evaluated before, and on Python's names of types."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from fhirpathpy.engine.invocations.misc import to_quantity
from fhirpathpy.engine.nodes import FP_Quantity, ResourceNode

from fhirpath_otel.evaluator.memory import quantities, temporals
from fhirpath_otel.evaluator.memory.operators import representable
from fhirpath_otel.evaluator.memory.values import is_number, plain
from fhirpath_otel.evaluator.model import Model

Items = list[Any]
Context = dict[str, Any]

_SYSTEM = "System."
_BASE_PROFILES = "http://hl7.org/fhir/StructureDefinition/"
_NAMES = {
    bool: "Boolean",
    int: "Integer",
    Decimal: "Decimal",
    str: "String",
    FP_Quantity: "Quantity",
}
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_TRUE, _FALSE = (
    frozenset(("true", "t", "yes", "y", "1", "1.0")),
    frozenset(("false", "f", "no", "n", "0", "0.0")),
)


def invocations(model: Model) -> dict[str, dict[str, Any]]:
    """Their rows of fhirpathpy's table."""
    tests = _TypeTests(model)
    function, operator = {1: ["TypeSpecifier"]}, {2: ["Any", "TypeSpecifier"]}
    return {
        "is": {"fn": tests.is_, "arity": function},
        "isOp": {"fn": tests.is_, "arity": operator},
        "as": {"fn": tests.of_type, "arity": function},
        "asOp": {"fn": tests.of_type, "arity": operator},
        "ofType": {"fn": tests.of_type, "arity": function},
        "conformsTo": {"fn": tests.conforms_to, "arity": {1: ["String"]}},
        "type": {"fn": lambda _context, items: [_described(type_of(item)) for item in items]},
        "toString": {"fn": _to_string},
        "toInteger": {"fn": _to_integer},
        "convertsToInteger": {"fn": _converts(_to_integer)},
        "toBoolean": {"fn": _to_boolean},
        "convertsToBoolean": {"fn": _converts(_to_boolean)},
        "toQuantity": {"fn": _to_quantity, "arity": {0: [], 1: ["String"]}},
        "convertsToQuantity": {"fn": _converts(_to_quantity), "arity": {0: [], 1: ["String"]}},
        **{
            name: {"fn": lambda context, _items, kind=kind: temporals.present(context["now"], kind)}
            for name, kind in (("now", "DateTime"), ("today", "Date"), ("timeOfDay", "Time"))
        },
        **{f"to{kind}": {"fn": _to_temporal(kind)} for kind in ("Date", "DateTime", "Time")},
        **{
            f"convertsTo{kind}": {"fn": _converts(_to_temporal(kind))}
            for kind in ("Date", "DateTime", "Time")
        },
    }


class _TypeTests:
    """Over FHIR's hierarchy and the System types; `wanted` has a name and perhaps a namespace."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def is_(self, _context: Context, items: Items, wanted: Any) -> bool | None:
        return self._matches(items[0], wanted) if items else None

    def of_type(self, _context: Context, items: Items, wanted: Any) -> Items:
        return [item for item in items if self._matches(item, wanted)]

    def conforms_to(self, _context: Context, items: Items, url: Any) -> bool | None:
        name = base_profile(url, self._model) if items and url != [] else None
        if name is None:
            if items and url != []:
                raise ValueError("an unknown profile")
            return None
        return self._model.is_a(type_of(items[0]), name)

    def _matches(self, item: Any, wanted: Any) -> bool:
        kind = type_of(item)
        if kind.startswith(_SYSTEM):
            return wanted.namespace != "FHIR" and wanted.name in {kind.removeprefix(_SYSTEM), "Any"}
        return wanted.namespace != "System" and self._model.is_a(kind, wanted.name)


def base_profile(url: str, model: Model) -> str | None:
    """The type whose base definition it is; no other profiles are known."""
    name = url.removeprefix(_BASE_PROFILES)
    return None if model.kind(name) is None else name


def type_of(item: Any) -> str:
    """A FHIR type, the path of a backbone element, or `System.` and a name; empty if it cannot be known."""
    if isinstance(item, ResourceNode) and (item.path or isinstance(item.data, Mapping)):
        return item.path or ""
    value = plain(item)
    name = temporals.type_of(value) if temporals.is_temporal(value) else _NAMES.get(type(value))
    return f"{_SYSTEM}{name}" if name else ""


def _described(kind: str) -> dict[str, str]:
    if kind.startswith(_SYSTEM):
        return {"namespace": "System", "name": kind.removeprefix(_SYSTEM)}
    return {"namespace": "FHIR", "name": "BackboneElement" if "." in kind else kind}


def _to_string(_context: Context, values: Items) -> str | None:
    value = values[0] if values else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return f"{value:f}"
    if value is None or isinstance(value, Mapping):
        return None
    return str(getattr(value, "asStr", value))


def _to_integer(_context: Context, values: Items) -> int | None:
    """Of a whole number, its text or a truth value: https://hl7.org/fhirpath/N1/#tointeger-integer"""
    value = values[0] if values else None
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    return representable(int(value)) if isinstance(value, int) else None


def _to_boolean(_context: Context, values: Items) -> bool | None:
    """https://hl7.org/fhirpath/N1/#toboolean-boolean"""
    value = values[0] if values else None
    if isinstance(value, bool):
        return value
    if is_number(value):
        return None if value not in {0, 1} else value == 1
    word = value.lower() if isinstance(value, str) else None
    return True if word in _TRUE else False if word in _FALSE else None


def _to_quantity(context: Context, values: Items, unit: Any = None) -> FP_Quantity | None:
    found = to_quantity(context, values)
    if unit == [] or not isinstance(found, FP_Quantity):
        return None
    if unit is None:
        return found
    return quantities.converted(found, unit if unit in FP_Quantity.timeUnitsToUCUM else f"'{unit}'")


def _to_temporal(kind: str) -> Callable[[Context, Items], Any]:
    def convert(_context: Context, values: Items) -> Any:
        value = values[0] if values else None
        text = str(getattr(value, "asStr", value))
        known = temporals.moment(text)
        if known is None or known.is_time != (kind == "Time"):
            return None
        return temporals.temporal(text.partition("T")[0] if kind == "Date" else text, kind)

    return convert


def _converts(convert: Callable[..., Any]) -> Callable[..., bool | None]:
    return lambda context, items, *arguments: (
        convert(context, items, *arguments) is not None if items else None
    )

"""The functions on numbers (https://hl7.org/fhirpath/N1/#math): decimals that fhirpathpy leaves without an end.

What cannot be computed, or is no number, is nothing; so is overflow, which `tree.py` takes from any calculation.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import Any

from fhirpathpy.engine.nodes import FP_Quantity

from fhirpath_otel.evaluator.memory.operators import representable
from fhirpath_otel.evaluator.memory.quantities import STEP
from fhirpath_otel.evaluator.memory.values import plain, typed

_NO_INTEGER = 2**32


def invocations() -> dict[str, dict[str, Any]]:
    """Their rows of fhirpathpy's table."""
    functions: dict[str, Callable[[Decimal], Any]] = {
        "ceiling": lambda number: _integer(number.to_integral_value(ROUND_CEILING)),
        "floor": lambda number: _integer(number.to_integral_value(ROUND_FLOOR)),
        "truncate": lambda number: _integer(number.to_integral_value(ROUND_DOWN)),
        "exp": lambda number: _rounded(number.exp()),
        "ln": lambda number: _rounded(number.ln()) if number > 0 else None,
        "sqrt": lambda number: _rounded(number.sqrt()) if number >= 0 else None,
    }
    return {
        **{name: {"fn": _of_number(function)} for name, function in functions.items()},
        "log": {"fn": _of_number(_log), "arity": {1: ["Number"]}},
        "power": {"fn": _power, "arity": {1: ["Number"]}},
        "round": {"fn": _of_number(_round), "arity": {0: [], 1: ["Number"]}},
        "abs": {"fn": _abs},
    }


def _of_number(compute: Callable[..., Any]) -> Callable[..., Any]:
    """The function of one number; empty where the number, or an argument, is."""

    def call(_context: Any, items: list[Any], *arguments: Any) -> Any:
        if not items or [] in arguments:
            return None
        return compute(Decimal(plain(items[0])), *arguments)

    return call


def _rounded(value: Decimal) -> Any:
    return representable(value.quantize(STEP, ROUND_HALF_UP))


def _integer(value: Decimal) -> int | None:
    return representable(int(value)) if abs(value) < _NO_INTEGER else None


def _log(number: Decimal, base: Any) -> Any:
    return _rounded(number.ln() / Decimal(base).ln()) if number > 0 and base > 0 and base != 1 else None


def _power(_context: Any, items: list[Any], exponent: Any) -> Any:
    """Exact for an exponent that multiplies; of integers an Integer then."""
    if not items or exponent == []:
        return None
    base = plain(items[0])
    whole = exponent % 1 == 0
    if base < 0 and not whole:
        return None
    power = Decimal(base) ** Decimal(exponent)
    if exponent < 0 or not whole:
        return _rounded(power)
    return _integer(power) if isinstance(base, int) and isinstance(exponent, int) else representable(power)


def _round(number: Decimal, places: Any = 0) -> Decimal:
    return number.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)


def _abs(_context: Any, items: list[Any]) -> Any:
    value = typed(items[0]) if items else None
    if isinstance(value, FP_Quantity):
        return FP_Quantity(abs(value.value), value.unit)
    return None if value is None else representable(abs(value)) if isinstance(value, int) else abs(value)

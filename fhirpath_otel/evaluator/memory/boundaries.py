"""`lowBoundary`, `highBoundary` and `precision`: what a value with so many digits can stand for.

https://build.fhir.org/ig/HL7/FHIRPath/#lowboundaryprecision-integer-decimal--date--datetime--time; the official suite
says how a boundary is rounded.
"""

from __future__ import annotations

from calendar import monthrange
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any

from fhirpathpy.engine.nodes import FP_Quantity

from fhirpath_otel.evaluator.memory.temporals import Moment, is_temporal, moment, temporal, type_of
from fhirpath_otel.evaluator.memory.values import typed

_MOST_PLACES = 31
_EARLIEST_ZONE, _LATEST_ZONE = "+14:00", "-12:00"
_DEFAULT_DIGITS = {"Date": 8, "DateTime": 17, "Time": 9}
_PART_ENDS = (4, 6, 8, 10, 12, 17)  # digits of a text up to the end of each part; of a time, 8 less


def low_boundary(_context: Any, items: list[Any], precision: Any = None) -> Any:
    """The least value that it can stand for, with so many decimal places, or digits of a date or time."""
    return _boundary(items, precision, upper=False)


def high_boundary(_context: Any, items: list[Any], precision: Any = None) -> Any:
    """The greatest value that it can stand for."""
    return _boundary(items, precision, upper=True)


def precision(_context: Any, items: list[Any]) -> int | None:
    """How many decimal places a number has, or digits a date or time."""
    value = typed(items[0]) if items else None
    if is_temporal(value):
        return _digits(value)
    return _places(value) if isinstance(value, int | Decimal) else None


def _boundary(items: list[Any], places: Any, *, upper: bool) -> Any:
    value = typed(items[0]) if items else None
    if value is None or places == []:
        return None
    if isinstance(value, FP_Quantity):
        number = _of_number(Decimal(value.value), 8 if places is None else places, upper=upper)
        return None if number is None else FP_Quantity(number, value.unit)
    if is_temporal(value):
        return _of_temporal(value, places or _DEFAULT_DIGITS[type_of(value)], upper=upper)
    return _of_number(Decimal(value), 8 if places is None else places, upper=upper)


def _places(value: int | Decimal) -> int:
    exponent = Decimal(value).as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


def _of_number(value: Decimal, places: int, *, upper: bool) -> Decimal | None:
    if not 0 <= places <= _MOST_PLACES:
        return None
    half_a_step = Decimal(5).scaleb(-_places(value) - 1)
    bound = value + half_a_step if upper else value - half_a_step
    towards_zero = abs(bound) < abs(value)
    return bound.quantize(Decimal(1).scaleb(-places), ROUND_DOWN if towards_zero else ROUND_HALF_UP)


def _digits(value: Any) -> int:
    known = moment(value)
    assert known is not None
    end = _PART_ENDS[known.precision] - 8 * known.is_time
    return end - 3 + known.places if known.precision == 5 else end


def _of_temporal(value: Any, digits: int, *, upper: bool) -> Any:
    known = moment(value)
    assert known is not None
    ends = [end - 8 * known.is_time for end in _PART_ENDS]
    if digits not in ends:
        return None
    last = ends.index(digits)
    return temporal(
        _filled(known, last, upper=upper), type_of(value) if last > 2 or known.is_time else "Date"
    )


def _filled(known: Moment, last: int, *, upper: bool) -> str:
    """The text up to a part, with the least or the greatest for what is not given."""
    year, month, day, hour, minute, second = known.parts
    month = month or Decimal(12 if upper else 1)
    last_day = 31 if year is None else monthrange(int(year), int(month))[1]
    day = day or Decimal(last_day if upper else 1)
    hour = Decimal(23 if upper else 0) if hour is None else hour
    minute = Decimal(59 if upper else 0) if minute is None else minute
    if second is None:
        second = Decimal("59.999" if upper else 0)
    elif known.places == 0 and upper:
        second += Decimal("0.999")
    date = "-".join((f"{year:04}", f"{month:02}", f"{day:02}")[: last + 1]) if year is not None else ""
    if last < 3:
        return date
    time = ":".join((f"{hour:02}", f"{minute:02}", f"{second:06.3f}")[: last - 2])
    if known.is_time:
        return time
    return f"{date}T{time}{known.zone or (_LATEST_ZONE if upper else _EARLIEST_ZONE)}"

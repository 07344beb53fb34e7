"""Dates and times: their order, their arithmetic, their parts.

fhirpathpy knows no difference between Date and DateTime, moves results to UTC, and compares elements as text. Here a
value is the text that it was written as, with the name of its type.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from fhirpathpy.engine.nodes import FP_DateTime, FP_Time

from fhirpath_otel.evaluator.dates import is_date

_TEXT = re.compile(
    r"(?:(\d{4})(?:-(\d\d)(?:-(\d\d))?)?)?"
    r"(?:T?(\d\d)(?::(\d\d)(?::(\d\d(?:\.\d+)?))?)?(Z|[+-]\d\d:\d\d)?)?"
)
_MILLISECONDS = {"millisecond": 1, "second": 1_000, "minute": 60_000, "hour": 3_600_000}
_MILLISECONDS_A_DAY = 86_400_000
_DAYS = {"day": 1, "week": 7}
_MONTHS = {"month": 1, "year": 12}
_UCUM = {"ms": "millisecond", "s": "second", "min": "minute", "h": "hour", "d": "day", "wk": "week"}

Parts = tuple[Decimal | None, ...]
"""Year, month, day, hour, minute, second: as far as they are given. The fraction belongs to the second."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A date or a time, taken apart; `zone` is `Z`, an offset or None, `places` are those of the second."""

    parts: Parts
    zone: str | None
    places: int

    @property
    def is_time(self) -> bool:
        """Whether it has no date."""
        return self.parts[0] is None

    @property
    def precision(self) -> int:
        """The position of the last part that is given."""
        return max(position for position, part in enumerate(self.parts) if part is not None)


def is_temporal(value: Any) -> bool:
    """Whether it is one of fhirpathpy's dates and times."""
    return isinstance(value, FP_DateTime | FP_Time)


def temporal(text: str, system_type: str) -> Any:
    """The value of a text; None if it is no date or time."""
    value = FP_Time(text) if system_type == "Time" else FP_DateTime(text.removesuffix("T"))
    known = None if value is None else moment(value.asStr)
    if known is None:
        return None
    value.moment = known
    value.system_type = system_type
    return value


def type_of(value: Any) -> str:
    """`Date`, `DateTime` or `Time`."""
    return str(getattr(value, "system_type", "Time" if isinstance(value, FP_Time) else "DateTime"))


def moment(value: Any) -> Moment | None:
    """What a date or time, or the text of one, says; None for anything that no calendar or clock shows."""
    if not isinstance(value, str):
        return getattr(value, "moment", None)
    found = _TEXT.fullmatch(value) if value else None
    if found is None:
        return None
    *parts, zone = found.groups()
    day = "-".join(part for part in parts[:3] if part)
    hour, minute, second = parts[3:]
    if (day and not is_date(day)) or (zone or "Z")[1:] > "14:00":
        return None
    if (hour or "") > "23" or (minute or "") > "59" or (second or "") >= "61":
        return None
    places = len(parts[5].partition(".")[2]) if parts[5] else 0
    return Moment(tuple(None if part is None else Decimal(part) for part in parts), zone, places)


def order(left: Any, right: Any) -> int | None:
    """-1, 0 or 1; None where one stops before the other, or only one of two times of day has a zone.

    https://hl7.org/fhirpath/N1/#equals, Date/Time Equality
    """
    one, other = moment(left), moment(right)
    if one is None or other is None or one.is_time != other.is_time:
        raise TypeError("no dates or times that can be compared")
    parts, other_parts = one.parts, other.parts
    if parts[3] is not None and other_parts[3] is not None:
        if (one.zone is None) != (other.zone is None):
            return None
        parts, other_parts = _in_utc(one), _in_utc(other)
    for part, other_part in zip(parts, other_parts, strict=True):
        if part != other_part:
            if part is None or other_part is None:
                return None
            return 1 if part > other_part else -1
    return 0


def same(left: Any, right: Any) -> bool | None:
    """Equality; None where it is not known, False if one is no date or only one has a date."""
    one, other = moment(left), moment(right)
    if one is None or other is None or one.is_time != other.is_time:
        return False
    known = order(left, right)
    return None if known is None else known == 0


def _in_utc(value: Moment) -> Parts:
    *day, minute, second = value.parts
    if value.zone in {None, "Z"} or None in day:
        return value.parts
    assert value.zone is not None
    moved = _clock(value) - _offset(value.zone)
    numbers = (Decimal(part) for part in (moved.year, moved.month, moved.day, moved.hour))
    return (*numbers, None if minute is None else Decimal(moved.minute), second)


def _offset(zone: str) -> timedelta:
    sign = -1 if zone[0] == "-" else 1
    return timedelta() if zone == "Z" else sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[4:]))


def _clock(value: Moment) -> datetime:
    """As a datetime, with the least for what is not given; times of day are of the year 2000."""
    year, month, day, hour, minute, second = value.parts
    seconds = second or Decimal(0)
    return datetime(
        int(year if year is not None else 2000),
        int(month or 1),
        int(day or 1),
        int(hour or 0),
        int(minute or 0),
        min(int(seconds), 59),
        int(seconds % 1 * 1_000_000),
        tzinfo=timezone.utc,
    )


# --- arithmetic


def shifted(value: Any, amount: Decimal, unit: str) -> Any:
    """A date or time plus a duration, in its own precision and zone; empty (None) beyond the years 1 to 9999.

    https://hl7.org/fhirpath/N1/#datetime-arithmetic: fractions of the amount do not count, and what is finer than the
    value is first converted to its precision. A month has 30 days then, a year 365.
    """
    start = moment(value)
    bare = unit.strip("'")
    unit = _UCUM.get(bare, bare.rstrip("s"))
    if start is None or unit not in {*_MILLISECONDS, *_DAYS, *_MONTHS}:
        raise ValueError("no calendar duration")
    try:
        moved = _moved(start, int(amount), unit)
    except (OverflowError, ValueError):
        return None
    places = 3 if start.places < 3 and unit == "millisecond" and start.precision == 5 else start.places
    return temporal(_text(moved, start, places), type_of(value))


def _moved(start: Moment, amount: int, unit: str) -> datetime:
    clock, precision = _clock(start), start.precision
    if unit in _MONTHS:
        return _plus_months(clock, amount * _MONTHS[unit], precision)
    if unit in _MILLISECONDS and precision >= 3:
        step = {3: 3_600_000, 4: 60_000, 5: 1}[precision]
        return clock + timedelta(milliseconds=_whole(amount * _MILLISECONDS[unit], step) * step)
    day_like = unit in _DAYS
    days = amount * _DAYS[unit] if day_like else _whole(amount * _MILLISECONDS[unit], _MILLISECONDS_A_DAY)
    if precision >= 2:
        return clock + timedelta(days=days)
    return _plus_months(clock, _whole(days, 30) if precision else 12 * _whole(days, 365), precision)


def _whole(amount: int, step: int) -> int:
    """How many whole steps, towards zero."""
    return abs(amount) // step * (1 if amount >= 0 else -1)


def _plus_months(clock: datetime, months: int, precision: int) -> datetime:
    """The same day of a later month, or its last."""
    if precision == 0:
        months = 12 * _whole(months, 12)
    year, month = divmod(clock.year * 12 + clock.month - 1 + months, 12)
    if not 1 <= year <= 9999:
        raise OverflowError
    return clock.replace(year=year, month=month + 1, day=min(clock.day, monthrange(year, month + 1)[1]))


def _text(clock: datetime, start: Moment, places: int) -> str:
    precision = start.precision
    day = "-".join((f"{clock.year:04}", f"{clock.month:02}", f"{clock.day:02}")[: precision + 1])
    if precision < 3:
        return day
    seconds = f"{clock.second:02}" + (f".{clock.microsecond:06}"[: places + 1] if places else "")
    time = ":".join((f"{clock.hour:02}", f"{clock.minute:02}", seconds)[: precision - 2])
    return time if start.is_time else f"{day}T{time}{start.zone or ''}"


def present(now: datetime, system_type: str) -> Any:
    """The present, which has a zone, as a Date, DateTime or Time."""
    text = now.isoformat(timespec="milliseconds")
    return temporal({"Date": text[:10], "DateTime": text, "Time": text[11:23]}[system_type], system_type)

"""Choices that come out the same on every platform and Python.

They all rest on `random.Random.random()`, the one method whose sequence for a seed Python promises to keep.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import date, datetime, timezone
from typing import TypeVar

T = TypeVar("T")

TIME_ZONES = ("Z", "+01:00", "-05:00", "+05:30")


class Draw:
    """Choices out of one stream of random numbers."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random  # noqa: S311  a population, not a secret

    def chance(self, probability: float) -> bool:
        """Whether something of this probability happens."""
        return self.random() < probability

    def below(self, limit: int) -> int:
        """A whole number from 0 up to, without, `limit`."""
        return int(self.random() * limit)

    def one(self, items: Sequence[T]) -> T:
        """One of the items, each as likely as the others."""
        return items[int(self.random() * len(items))]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """That many different items, neighbours in their list: cheap, and varied enough."""
        first = self.below(len(items))
        return [items[(first + step) % len(items)] for step in range(count)]

    def moment(self, day: date) -> datetime:
        """A moment in the office hours of a day."""
        hour, minute, second = 7 + self.below(11), self.below(60), self.below(60)
        return datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=timezone.utc)

    def zoned(self, moment: datetime) -> str:
        """A moment as FHIR writes it, with one of a few offsets, which are part of the text and must be kept."""
        return moment.strftime("%Y-%m-%dT%H:%M:%S") + self.one(TIME_ZONES)

    def identifier(self) -> str:
        """A UUID's form made of this stream."""
        digits = f"{int(self.random() * 2**48):012x}{int(self.random() * 2**48):012x}{int(self.random() * 2**32):08x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"

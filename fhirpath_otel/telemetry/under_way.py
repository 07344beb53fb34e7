"""Counts the evaluations that are under way: those begun, less those ended.

Each part is counted where it costs nothing more. Taking from an iterator is atomic, and costs 0.02 µs; ordinary
evaluations need not even that at their end, as they are counted when they are added up.
"""

from __future__ import annotations

import os
from collections import deque
from functools import partial
from itertools import repeat
from operator import length_hint

from fhirpath_otel.telemetry.watch import NEVER

MAX_FORGOTTEN = 1_000_000
"""Evaluations begun and never finished that may wait to be counted, should nobody ever collect."""


class UnderWay:
    """The evaluations under way in this process. Threads may share it.

    Who begins one takes from `begun`, who ends one from `ended`, or adds to `added_up` under a lock of its own.
    `forgotten` is called for one that was begun here and never finished; in a forked child it is another.
    """

    def __init__(self) -> None:
        self.begun = repeat(None, NEVER)
        self.ended = repeat(None, NEVER)
        self.added_up = 0
        self._inherited = 0
        self._lost: deque[None] = deque(maxlen=MAX_FORGOTTEN)
        self.forgotten = partial(self._forget, os.getpid())

    def count(self) -> int:
        """How many there are now."""
        return max(0, self._taken() - self._inherited)

    def take_forgotten(self) -> int:
        """How many were forgotten since the last call."""
        count = len(self._lost)
        for _ in range(count):
            self._lost.pop()
        return count

    def inherit(self) -> None:
        """In a forked child: what is under way is the parent's."""
        self._inherited = self._taken()
        self._lost.clear()
        self.forgotten = partial(self._forget, os.getpid())

    def _taken(self) -> int:
        return length_hint(self.ended) - length_hint(self.begun) - self.added_up

    def _forget(self, begun_in: int) -> None:
        """Called by a finalizer, so wherever it may be: takes no lock."""
        if begun_in == os.getpid():
            next(self.ended)
            self._lost.append(None)

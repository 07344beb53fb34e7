"""Counts the evaluations that are under way: those begun, less those ended.

Each part is counted where it costs nothing more. Under Python's global lock taking from an iterator is atomic, and
costs 0.02 µs; ordinary evaluations need not even that at their end, as they are counted when they are added up.
"""

from __future__ import annotations

from collections import deque
from itertools import repeat
from operator import length_hint
from time import perf_counter_ns
from typing import TYPE_CHECKING

from fhirpath_otel.telemetry.watch import NEVER

if TYPE_CHECKING:
    from fhirpath_otel.telemetry.evaluation import Evaluation

MAX_FORGOTTEN = 1_000_000
"""Evaluations begun and never finished that may wait to be counted, should nobody ever collect."""


class UnderWay:
    """The evaluations under way in this process. Threads may share it.

    Who begins one takes from `begun`, who ends one calls `end`, or adds to `added_up` under a lock of its own.
    """

    def __init__(self) -> None:
        self.begun = repeat(None, NEVER)
        self.added_up = 0
        self._ended = repeat(None, NEVER)
        self._inherited = 0
        self._since_ns = 0
        self._forgotten: deque[None] = deque(maxlen=MAX_FORGOTTEN)

    def count(self, waiting: int = 0) -> int:
        """How many there are now, if so many have ended and wait to be added up."""
        return max(0, self._taken() - self._inherited - waiting)

    def end(self, evaluation: Evaluation) -> bool:
        """Ends one; False if it is not counted here, as a forked child has it from its parent."""
        if self.inherited(evaluation):
            return False
        next(self._ended)
        return True

    def inherited(self, evaluation: Evaluation) -> bool:
        """Whether it was begun before this process was forked."""
        return evaluation.start_ns < self._since_ns

    def forget(self, evaluation: Evaluation) -> None:
        """Ends one that was not finished. Called by its finalizer, so wherever that may be: takes no lock."""
        if self.end(evaluation):
            self._forgotten.append(None)

    def take_forgotten(self) -> int:
        """How many were forgotten since the last call."""
        count = len(self._forgotten)
        for _ in range(count):
            self._forgotten.pop()
        return count

    def inherit(self) -> None:
        """In a forked child: what is under way is the parent's."""
        self._inherited, self._since_ns = self._taken(), perf_counter_ns()
        self._forgotten.clear()

    def _taken(self) -> int:
        return length_hint(self._ended) - length_hint(self.begun) - self.added_up

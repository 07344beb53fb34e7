"""How long evaluations of an expression usually take: its running 99th percentile, in bounded memory.

Durations are counted in buckets that are 9 % wide (eighths of a power of two), as the estimate is needed to the order
of its own noise only. Counts are halved whenever there are 4,096 of them, so the estimate is that of the last 2,000 to
4,000 evaluations. It follows evaluations that become slower when one in a hundred of those are of the new kind, and
evaluations that become faster when all but one in a hundred are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from math import log2
from threading import Lock
from typing import TYPE_CHECKING

from fhirpath_otel.telemetry.forks import call_in_forked_child

if TYPE_CHECKING:
    from fhirpath_otel.telemetry.evaluation import Evaluation

BUCKETS_PER_DOUBLING = 8
WARM_UP = 512
"""Durations before there is an estimate: at least five of them then lie above it."""
HALVED_AT = 4_096
_REFRESHED_EVERY = 64


class RunningPercentile:
    """The 99th percentile of durations in nanoseconds, rounded up by at most 9 %. Callers of `add` hold a lock."""

    __slots__ = ("_buckets", "_total", "limit_ns")

    def __init__(self) -> None:
        self.limit_ns = float("inf")
        self._buckets: dict[int, int] = {}
        self._total = 0

    def add(self, durations: Sequence[int]) -> None:
        """Counts ascending durations; the estimate follows every 64 of them."""
        before, begun = self._total, 0
        while begun < len(durations):
            bucket = _bucket(durations[begun])
            edge = 2 ** ((bucket + 1) / BUCKETS_PER_DOUBLING)
            end = max(begun + 1, bisect_left(durations, edge, begun))
            self._buckets[bucket] = self._buckets.get(bucket, 0) + end - begun
            begun = end
        self._total += len(durations)
        if self._total >= HALVED_AT:
            self._buckets = {key: count // 2 for key, count in self._buckets.items() if count > 1}
            before, self._total = 0, sum(self._buckets.values())
        if self._total // _REFRESHED_EVERY > before // _REFRESHED_EVERY and self._total >= WARM_UP:
            self.limit_ns = self._estimate()

    def _estimate(self) -> float:
        """The upper edge of the bucket that holds the percentile: at most one in a hundred lies above."""
        above = 0
        for bucket in sorted(self._buckets, reverse=True):
            above += self._buckets[bucket]
            if above * 100 > self._total:
                return float(2 ** ((bucket + 1) / BUCKETS_PER_DOUBLING))
        return float("inf")


def _bucket(duration_ns: int) -> int:
    return int(log2(duration_ns) * BUCKETS_PER_DOUBLING) if duration_ns > 1 else 0


class UsualDurations:
    """The running percentiles of the `capacity` expressions evaluated last. Threads may share it.

    Takes about 3 kB an expression. Evaluations that failed are not counted: they end early.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._percentiles: OrderedDict[str, RunningPercentile] = OrderedDict()
        self._renew_lock()
        call_in_forked_child(self._renew_lock)

    def is_exceeded(self, evaluation: Evaluation) -> bool:
        """Whether the evaluation took longer than 99 % of its expression's do; False while too few are known."""
        if evaluation.template is None:
            return False
        known = self._percentiles.get(evaluation.template.hash)
        return known is not None and evaluation.duration_ns > known.limit_ns

    def note(self, evaluation: Evaluation) -> None:
        """Counts the duration of an evaluation that did not fail."""
        if evaluation.template is not None and evaluation.error_type is None:
            self.note_all(evaluation.template.hash, (evaluation.duration_ns,))

    def note_all(self, key: str, durations: Sequence[int]) -> float:
        """Counts ascending durations of an expression, and forgets the one that was not evaluated for longest.

        Returns the nanoseconds that 99 % of them do not exceed; infinite while too few are known.
        """
        if self._capacity == 0:
            return float("inf")
        with self._lock:
            known = self._percentiles.get(key)
            if known is None:
                known = self._percentiles[key] = RunningPercentile()
                if len(self._percentiles) > self._capacity:
                    self._percentiles.popitem(last=False)
            else:
                self._percentiles.move_to_end(key)
            known.add(durations)
            return known.limit_ns

    def _renew_lock(self) -> None:
        self._lock = Lock()

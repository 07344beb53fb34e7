"""What the rules about repetition need to know of the past: counts and times, within bounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock

from fhirpath_otel.telemetry.forks import call_in_forked_child


class RecentCounts:
    """How often each of the last `capacity` keys was noted, and the nanoseconds noted with it. Threads may share it.

    With `window_ns` a key's count starts anew with the first note that comes later than that after its beginning.
    """

    def __init__(self, capacity: int, window_ns: float = float("inf")) -> None:
        self._capacity = capacity
        self._window_ns = window_ns
        self._entries: OrderedDict[Hashable, tuple[int, int, int]] = OrderedDict()
        self._renew_lock()
        call_in_forked_child(self._renew_lock)

    def __len__(self) -> int:
        return len(self._entries)

    def note(self, key: Hashable, spent_ns: int, now_ns: int) -> tuple[int, int]:
        """Notes one more; returns the count and the nanoseconds with it included."""
        with self._lock:
            count, total_ns, begun_ns = self._entries.pop(key, (0, 0, now_ns))
            if now_ns - begun_ns > self._window_ns:
                count, total_ns, begun_ns = 0, 0, now_ns
            count, total_ns = count + 1, total_ns + spent_ns
            self._entries[key] = count, total_ns, begun_ns
            while len(self._entries) > self._capacity:
                self._entries.popitem(last=False)
        return count, total_ns

    def _renew_lock(self) -> None:
        self._lock = Lock()

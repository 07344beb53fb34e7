"""A cache that forgets what was not used for longest, bounded by number and by memory."""

from __future__ import annotations

import os
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """Threads may share it. It holds at most `max_entries` values, whose estimated sizes sum up to `max_bytes` at most.

    A value that alone exceeds `max_bytes` is not kept. `hits` and `misses` count what `get` was asked for.
    """

    __slots__ = ("__weakref__", "_lock", "_max_bytes", "_max_entries", "_values", "bytes", "hits", "misses")

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._renew_lock()
        if hasattr(os, "register_at_fork"):
            # Another thread may hold the lock at a fork, and nobody would ever release the child's copy.
            renew = weakref.WeakMethod(self._renew_lock)
            os.register_at_fork(after_in_child=lambda: (method := renew()) and method())

    @property
    def entries(self) -> int:
        """Values held now."""
        return len(self._values)

    def get(self, key: K) -> V | None:
        """The value that was put under the key, unless it was forgotten since."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                self.misses += 1
                return None
            self._values.move_to_end(key)
            self.hits += 1
            return found[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keeps a value of about `size` bytes; the one that is there already stays."""
        if size > self._max_bytes or self._max_entries < 1:
            return
        with self._lock:
            if key in self._values:
                return
            self._values[key] = (value, size)
            self.bytes += size
            while self.bytes > self._max_bytes or len(self._values) > self._max_entries:
                _, (_, freed) = self._values.popitem(last=False)
                self.bytes -= freed

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._values.clear()
            self.bytes = 0

    def _renew_lock(self) -> None:
        self._lock = Lock()

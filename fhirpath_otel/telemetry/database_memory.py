"""What the database engines that live in this process use, by their own account.

A database registers a way to ask it. Asking DuckDB takes 0.3 to 1 ms, also while it is busy, so it is asked only as
often as somebody needs to know: when metrics are collected, and by the thread that watches long evaluations.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Hashable
from threading import Lock, RLock
from time import perf_counter_ns
from typing import NamedTuple

from fhirpath_otel.telemetry.forks import call_in_forked_child

MOST_DATABASES = 64
"""Databases that are asked; a collection then takes 20 to 60 ms at most."""

COLLECTION_AGE_NS = 1_000_000_000
"""So old figures may be that are collected: two metrics are made of one answer."""

CLOSE_SECONDS = 1.0

_logger = logging.getLogger("fhirpath_otel")


class InUse(NamedTuple):
    """Bytes in memory, and in temporary files."""

    memory: int
    temporary: int


class DatabaseMemory:
    """The memory of one engine. `instance` tells whether two of them are the same engine.

    `read` must not keep the database alive; what it raises means that there are no figures.
    """

    def __init__(
        self,
        system: str,
        instance: Hashable,
        read: Callable[[], InUse],
        clock: Callable[[], int] = perf_counter_ns,
    ) -> None:
        self.system = system
        self.instance = instance
        self.latest: InUse | None = None
        self.latest_ns: int | None = None
        self._read = read
        self._clock = clock
        self._closed = False
        self._reading = Lock()

    def in_use(self, max_age_ns: int) -> InUse | None:
        """The figures, which may be that old; None where the database does not tell, as when it is closed.

        While another thread asks, the figures are those from before.
        """
        if self.latest_ns is not None and self._clock() - self.latest_ns <= max_age_ns:
            return self.latest
        if not self._reading.acquire(blocking=False):
            return self.latest
        try:
            self.latest = None if self._closed else self._read()
        except Exception:  # noqa: BLE001 -- it fails in ways of its own
            self.latest = None
        finally:
            self.latest_ns = self._clock()
            self._reading.release()
        return self.latest

    @property
    def closed(self) -> bool:
        """Whether it is asked no more."""
        return self._closed

    def close(self) -> None:
        """Ends asking; waits for who asks right now, as no database should be closed under a statement."""
        self._closed = True
        self.latest = None
        if self._reading.acquire(timeout=CLOSE_SECONDS):
            self._reading.release()


class OpenDatabases:
    """The engines of this process that a recorder knows of. A database that is gone is forgotten."""

    def __init__(self) -> None:
        self._known: tuple[weakref.ref[DatabaseMemory], ...] = ()
        self._lock = RLock()
        self._said = False
        call_in_forked_child(self._in_child)

    def add(self, database: DatabaseMemory) -> None:
        """Takes a database in, while it lives."""
        with self._lock:
            known = [item for item in self._known if (other := item()) is not None and not other.closed]
            if len(known) < MOST_DATABASES:
                self._known = (*known, weakref.ref(database))
            elif not self._said:
                self._said = True
                _logger.warning(
                    "more than %d databases are open: memory of further ones is not counted", MOST_DATABASES
                )

    def totals(self) -> dict[str, InUse]:
        """The sums by system, each engine counted once however often it is open."""
        engines: dict[tuple[str, Hashable], InUse] = {}
        for reference in self._known:
            database = reference()
            if database is None or (database.system, database.instance) in engines:
                continue
            in_use = database.in_use(COLLECTION_AGE_NS)
            if in_use is not None:
                engines[database.system, database.instance] = in_use
        sums: dict[str, InUse] = {}
        for (system, _), in_use in engines.items():
            memory, temporary = sums.get(system, InUse(0, 0))
            sums[system] = InUse(memory + in_use.memory, temporary + in_use.temporary)
        return sums

    def _in_child(self) -> None:
        """The parent's databases are the parent's, and so may be the holder of the lock."""
        self._lock = RLock()
        self._known = ()

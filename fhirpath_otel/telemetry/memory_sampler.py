"""The memory of long evaluations, watched by one thread that exists only while one runs, or may.

Reading the size of the process takes 10 µs, too much for every evaluation. So it is read where an evaluation may
take long, because its expression is new or took long before; all others cost one boolean. An evaluation that takes
long for the first time, of an expression that is known to be short, has no figures; the next one has.

The size is that of the whole process: evaluations that run side by side are seen in each other's figures.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import threading
import weakref
from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.forks import call_in_forked_child
from fhirpath_otel.telemetry.long_expressions import LongExpressions

if TYPE_CHECKING:
    from fhirpath_otel.telemetry.database_memory import DatabaseMemory
    from fhirpath_otel.telemetry.evaluation import Evaluation
    from fhirpath_otel.telemetry.resident_memory import ResidentMemory

FROM_SECONDS = 0.05
"""An evaluation that took so long has figures."""

MOST_CANDIDATES = 1_000
LONGEST_SECONDS = 3_600
"""An evaluation that has not ended after that (perhaps a result that nobody reads on) is let go of, without figures."""

LINGER_SECONDS = 0.25
"""The thread outlives the last candidate by that, so that a loop does not start one for each evaluation."""

DATABASE_SECONDS = 0.05
"""How often databases are asked at most, which takes up to 1 ms."""

EXIT_SECONDS = 0.5
SECOND = 1_000_000_000

_logger = logging.getLogger("fhirpath_otel")


def _loses(what: str, reason: str) -> None:
    """Nobody counts."""


class Track:
    """What was seen of one evaluation's memory while it runs."""

    __slots__ = (
        "__weakref__",
        "database",
        "database_peak",
        "key",
        "peak",
        "start",
        "started_ns",
        "temp_peak",
    )

    def __init__(self, key: int, started_ns: int, start: int, database: DatabaseMemory | None) -> None:
        self.key = key
        self.started_ns = started_ns
        self.start = self.peak = start
        self.database = database
        self.database_peak: int | None = None
        self.temp_peak: int | None = None

    def note(self, resident: int) -> None:
        """Takes in a size of the process."""
        self.peak = max(self.peak, resident)

    def note_database(self) -> None:
        """Takes in the figures of the evaluation's database, if they are of its time."""
        database = self.database
        if database is None or database.latest is None or (database.latest_ns or 0) <= self.started_ns:
            return
        self.database_peak = max(self.database_peak or 0, database.latest.memory)
        self.temp_peak = max(self.temp_peak or 0, database.latest.temporary)


class MemorySampler:
    """Fills in the memory of evaluations that lasted `from_seconds` or more. Threads may share it; never raises.

    `lost` takes what was lost and why. `start_threads` is for tests, which call `sample` themselves.
    """

    def __init__(
        self,
        resident: ResidentMemory,
        lost: Callable[[str, str], None] = _loses,
        *,
        clock: Callable[[], int] = perf_counter_ns,
        interval: float = 0.01,
        from_seconds: float = FROM_SECONDS,
        start_threads: bool = True,
    ) -> None:
        self._resident = resident
        self._lost = lost
        self._clock = clock
        self._interval = interval
        self._from_seconds = from_seconds
        self._from_ns = round(from_seconds * SECOND)
        self._start_threads = start_threads
        self._expressions = LongExpressions()
        self._keys = itertools.count()
        self._closed = False
        self._said = False
        self._forget()
        call_in_forked_child(self._forget)
        close = weakref.WeakMethod(self.close)
        atexit.register(lambda: (method := close()) and method())

    def _forget(self) -> None:
        """Nothing is watched: at first, and in a forked child, where the thread does not exist."""
        self._lock = threading.RLock()  # A finalizer may begin an evaluation while its thread begins another.
        self._running: dict[int, weakref.ref[Track]] = {}
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._idle_ns: int | None = None

    def expects_long(self, evaluation: Evaluation) -> bool:
        """Whether it may take long: its expression did before, or is not known yet."""
        template = evaluation.template
        return template is not None and self._expressions.expects(template.hash)

    def begin(self, evaluation: Evaluation, expected_long: bool) -> None:
        """Watches an evaluation from now on, if it may take long."""
        if not expected_long or self._closed:
            return
        try:
            self._begin(evaluation)
        except Exception as error:  # noqa: BLE001 -- telemetry never fails an evaluation
            self._failed(error)

    def end(self, evaluation: Evaluation) -> None:
        """Fills in the figures of an evaluation that took long; reads its `duration_ns`.

        It takes no lock, because finalizers end evaluations at any moment.
        """
        track = evaluation.memory_track
        is_long = evaluation.duration_ns >= self._from_ns
        if track is None and not is_long:
            return
        evaluation.memory_track = None
        try:
            if track is not None and self._running.pop(track.key, None) is not None and is_long:
                self._fill_in(evaluation, track)
            self._learn(evaluation, is_long)
        except Exception as error:  # noqa: BLE001 -- telemetry never fails an evaluation
            self._failed(error)

    def sample(self) -> float | None:
        """One look at what runs; returns the seconds until the next, or None where none is needed any more."""
        now_ns = self._clock()
        tracks = self._watched(now_ns)
        if not tracks:
            return self._from_seconds if self._lingers(now_ns) else None
        self._idle_ns = None
        ages_ns = [now_ns - track.started_ns for track in tracks]
        if max(ages_ns) < self._from_ns:
            return (self._from_ns - max(ages_ns)) / SECOND
        resident = self._resident.read()
        if resident is not None:
            for track in tracks:
                track.note(resident)
        self._ask_databases([track for track in tracks if now_ns - track.started_ns >= self._from_ns])
        # What has run for long is looked at less often, but whatever begins meanwhile in time.
        return min(max(self._interval, min(ages_ns) / SECOND / 100), self._from_seconds)

    def close(self) -> None:
        """Ends the thread and starts none any more, as when the interpreter exits.

        A thread that is inside of a database when the interpreter goes would take the process down with it.
        """
        self._closed = True
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(EXIT_SECONDS)

    def _begin(self, evaluation: Evaluation) -> None:
        start = self._resident.read()
        if start is None:
            return
        if len(self._running) >= MOST_CANDIDATES:
            self._lost(semconv.WHAT_MEMORY, semconv.LIMIT)
            return
        track = Track(next(self._keys), self._clock(), start, evaluation.database_memory)
        with self._lock:
            self._running[track.key] = weakref.ref(track)
            if self._thread is None and self._start_threads and not self._start():
                del self._running[track.key]
                return
        evaluation.memory_track = track

    def _start(self) -> bool:
        """Whether a thread could be started; not while the interpreter exits. The caller holds the lock."""
        self._thread = threading.Thread(target=self._run, name="fhirpath-otel-memory", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
        return self._thread is not None

    def _run(self) -> None:
        stop = self._stop
        try:
            pause = self.sample()
            while pause is not None and not stop.wait(pause):
                pause = self.sample()
        except Exception as error:  # noqa: BLE001 -- the next candidate starts another
            with self._lock:
                self._thread = None
            self._failed(error)

    def _watched(self, now_ns: int) -> list[Track]:
        """The evaluations that run; forgets those that were abandoned."""
        tracks = []
        for key, reference in self._running.copy().items():
            track = reference()
            if track is None or now_ns - track.started_ns > LONGEST_SECONDS * SECOND:
                self._running.pop(key, None)
            else:
                tracks.append(track)
        return tracks

    def _lingers(self, now_ns: int) -> bool:
        """Whether the thread waits for another candidate; it is gone for the others once this says no."""
        if self._idle_ns is None:
            self._idle_ns = now_ns
        if now_ns - self._idle_ns < LINGER_SECONDS * SECOND:
            return True
        with self._lock:
            if self._running:
                return True
            self._thread = self._idle_ns = None
            return False

    def _ask_databases(self, tracks: list[Track]) -> None:
        """Asks the one whose figures are the oldest, and none more often than all together may be asked."""
        databases = {track.database for track in tracks if track.database is not None}
        if not databases:
            return
        oldest = min(databases, key=lambda database: database.latest_ns or 0)
        oldest.in_use(round(DATABASE_SECONDS * SECOND) * len(databases))
        for track in tracks:
            track.note_database()

    def _fill_in(self, evaluation: Evaluation, track: Track) -> None:
        evaluation.database_memory_peak = track.database_peak
        evaluation.database_temp_peak = track.temp_peak
        resident = self._resident.read()
        if resident is None:
            return
        track.note(resident)
        if not self._resident.only_peaks:
            evaluation.rss_start, evaluation.rss_peak = track.start, track.peak
            evaluation.rss_delta = resident - track.start
        elif resident > track.start:
            evaluation.rss_peak = resident

    def _learn(self, evaluation: Evaluation, is_long: bool) -> None:
        template = evaluation.template
        if template is None or template.text is None:
            return
        if is_long:
            evaluation.rss_growth = self._expressions.note_long(template.hash, evaluation.rss_delta)
        else:
            self._expressions.note_short(template.hash)

    def _failed(self, error: Exception) -> None:
        if not self._said:
            self._said = True
            _logger.warning(
                "memory of an evaluation was not measured (%s); the evaluation itself is not affected,"
                " further losses are only counted, in %s",
                type(error).__name__,
                semconv.LOST.name,
            )
        self._lost(semconv.WHAT_MEMORY, semconv.INTERNAL_ERROR)

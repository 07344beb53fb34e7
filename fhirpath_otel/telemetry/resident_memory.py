"""How much memory of the machine this process holds: its resident set, read in about 10 µs.

Where neither psutil nor `/proc` is there, `resource` only knows the largest size ever: that tells the peak of an
evaluation that went beyond it, and nothing of any other.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

Read = Callable[[], int]

_STATM = "/proc/self/statm"

_logger = logging.getLogger("fhirpath_otel")


class _Source(NamedTuple):
    read: Read
    only_peaks: bool = False


class ResidentMemory:
    """Reads the size in bytes, by the first way that works here. Never raises; threads may share it.

    `only_peaks` says that what is read is the largest size so far and not the present one.
    """

    def __init__(self) -> None:
        # Now, because importing psutil takes 20 ms that should be no evaluation's.
        self._source = next(
            (source for make in (_psutil, _proc, _resource) if (source := _tried(make))), None
        )
        self._said = False
        if self._source is None:
            self._say("this platform does not tell it; pip install 'fhirpath-otel[memory]'")

    @property
    def only_peaks(self) -> bool:
        """Whether only the largest size so far is known."""
        return self._source is not None and self._source.only_peaks

    def read(self) -> int | None:
        """The size; None where it cannot be told."""
        source = self._source
        if source is None:
            return None
        try:
            return source.read()
        except Exception as error:  # noqa: BLE001 -- it worked once: a limit of open files, or a sandbox that closed
            self._say(f"it cannot be read at times ({type(error).__name__})")
            return None

    def _say(self, why: str) -> None:
        if not self._said:
            self._said = True
            _logger.warning("memory of evaluations is not measured: %s", why)


def _tried(make: Callable[[], _Source]) -> _Source | None:
    """A way to read that works; None where it does not."""
    try:
        source = make()
        source.read()
    except Exception:  # noqa: BLE001 -- a package may be missing, or broken in any way
        return None
    return source


def _psutil() -> _Source:
    import psutil

    process = psutil.Process()

    def read() -> int:
        nonlocal process
        if process.pid != os.getpid():  # It would go on to tell of the parent after a fork.
            process = psutil.Process()
        size: int = process.memory_info().rss
        return size

    return _Source(read)


def _proc() -> _Source:
    page = os.sysconf("SC_PAGE_SIZE")

    def read() -> int:
        # Opened each time: a file that is kept open belongs to the process that opened it, also in its forks.
        with open(_STATM, "rb", buffering=0) as file:  # noqa: PTH123 -- half the time of Path.open
            return int(file.read().split()[1]) * page

    return _Source(read)


def _resource() -> _Source:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return _Source(lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, only_peaks=True)

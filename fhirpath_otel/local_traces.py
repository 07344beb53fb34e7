"""Writes traces to files on this machine: OTLP-JSON, one file per process, for this user's eyes only.

Every batch of spans is one line in one write, so that a crash breaks the last line at most. No lock is shared
between processes: a forked child opens a file of its own. `fhirpath_otel.telemetry.local_files` reads them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.json.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from fhirpath_otel import semconv
from fhirpath_otel.telemetry.local_files import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

MAX_AGE_SECONDS = 7 * 24 * 3600
"""Older files are removed when a process opens one; without that, every run of the command line would leave one."""

_logger = logging.getLogger("fhirpath_otel")


class TraceFileExporter(SpanExporter):
    """Appends spans to a file of this process in `directory`, which is made if need be.

    A process keeps at most `max_bytes`: a full file (half of that) becomes the previous one, and the one before it
    is removed. `lost(what, reason, count)` is told of spans that were removed or could not be written; the first
    failure is also logged. Exporting never raises.
    """

    def __init__(self, directory: Path, max_bytes: int, lost: Callable[[str, str, int], None]) -> None:
        self._directory = directory
        self._file_bytes = max_bytes // 2
        self._lost = lost
        self._said = False
        self._begin_anew()
        if hasattr(os, "register_at_fork"):
            begin_anew = weakref.WeakMethod(self._begin_anew)
            os.register_at_fork(after_in_child=lambda: (method := begin_anew()) and method())

    @property
    def path(self) -> Path | None:
        """The file that is being written to; None before the first span."""
        return self._path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Appends the spans as one line."""
        try:
            content = json.dumps(encode_spans(spans).to_dict(), separators=(",", ":"))
            with self._lock:
                self._append(content.encode() + b"\n", len(spans))
        except Exception as error:  # noqa: BLE001 -- a full disk or a broken attribute is not the host's problem
            self._failed(error, len(spans))
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Closes the file."""
        with self._lock:
            self._close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is buffered here."""
        return True

    def _begin_anew(self) -> None:
        """State of a process that has written nothing; in a forked child the parent's file is left alone."""
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._path: Path | None = None
        self._size = 0
        self._spans = 0
        self._previous: tuple[Path, int] | None = None

    def _append(self, line: bytes, spans: int) -> None:
        if self._size and self._size + len(line) > self._file_bytes:
            self._rotate()
        if self._descriptor is None or os.fstat(self._descriptor).st_nlink == 0:
            self._open()
        if self._descriptor is None or len(line) > self._file_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        written = os.write(self._descriptor, line)
        if written < len(line):
            # The disk is full: what is half written must not spoil the next line.
            os.ftruncate(self._descriptor, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written
        self._spans += spans

    def _open(self) -> None:
        self._close()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._remove_old_files()
        path = self._directory / f"{time.time_ns()}-{os.getpid()}{SUFFIX}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        self._descriptor = os.open(path, flags, 0o600)
        self._path, self._size, self._spans = path, 0, 0

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _rotate(self) -> None:
        self._close()
        if self._previous is not None:
            path, spans = self._previous
            path.unlink(missing_ok=True)
            self._lost(semconv.WHAT_SPAN, semconv.FILE_ROTATED, spans)
        if self._path is not None:
            self._previous = (self._path, self._spans)
        self._size = 0

    def _remove_old_files(self) -> None:
        too_old = time.time() - MAX_AGE_SECONDS
        for file in self._directory.glob("*" + SUFFIX):
            # Another process may be faster.
            with contextlib.suppress(OSError):
                if file.stat().st_mtime < too_old:
                    file.unlink()

    def _failed(self, error: Exception, spans: int) -> None:
        self._lost(semconv.WHAT_SPAN, semconv.FILE_ERROR, spans)
        if not self._said:
            self._said = True
            _logger.warning(
                "traces cannot be written to %s (%s); they are lost and counted in %s, evaluations are not affected",
                self._directory,
                getattr(error, "strerror", None) or type(error).__name__,
                semconv.LOST.name,
            )

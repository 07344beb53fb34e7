"""Opening a DuckDB database, running statements that Ctrl-C stops, and DuckDB's errors in one clear sentence each.

A database file is attached to an in-memory DuckDB, because only ATTACH takes the storage options that we need:

- `TYPE duckdb`: otherwise it opens JSON and CSV files as tables, and fetches an extension for SQLite's.
- `STORAGE_VERSION 'v1.5.0'`: zstd compression also where DuckDB 1.5 makes the file, and files that 1.5 and 2.0 both
  read. A file that was made by other means can be newer than that, and cannot be made older.
- `ROW_GROUP_SIZE`: a sixth of the default. A load holds a row group of each type in memory and writes full ones
  at once (1.2 GB of claims: 0.6 GB of memory instead of 0.9, and a quarter less time), and a query has work for
  several threads from 20,000 resources on.

The in-memory DuckDB is named after the file, so that opening a file twice in a process shares one instance, as
DuckDB does for files that it opens itself. The file must never be opened otherwise: closing any other handle of it
releases the lock that keeps other processes out.
"""

from __future__ import annotations

import contextvars
import functools
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from fhirpath_otel.errors import DatabaseError

if TYPE_CHECKING:
    import duckdb

P = ParamSpec("P")
T = TypeVar("T")

CATALOG = "fhir"
MEMORY = ":memory:"
ROW_GROUP_SIZE = 20_480

_THREAD_NAME = "fhirpath_otel duckdb"
_JOIN_SECONDS = 1.0
_LOOKS_UP_SECONDS = 0.2

# Where a table is missing, DuckDB would look for a Python variable of that name.
_CONFIG = {"python_enable_replacements": "false"}
_ERRORS = (
    (
        r"Could not set lock.*?(?P<pid>\(PID \d+\)|$)",
        "is in use by another process {pid}; close it there first",
    ),
    (r"Unique file handle conflict", "is open in this process in another way; close it there first"),
    (r"not a valid DuckDB database file", "is not a DuckDB database; name another file, or remove this one"),
    (
        r"version number|newer version",
        "was written by a newer DuckDB than {version}: pip install --upgrade duckdb",
    ),
    (r"(?i)corrupt|checksum", "is damaged; restore it from a copy"),
    (r"database does not exist", "does not exist; make it with: fhirpath-otel load DATABASE PATH…"),
    (r"No such file or directory", "cannot be made: its folder does not exist"),
    (r"Is a directory", "is a folder, not a database"),
    (r"Permission denied", "cannot be opened: permission denied"),
    (r"Read-only file system", "is on a read-only disk; open it read-only"),
    (r"read-only mode", "is opened read-only, so nothing can be stored in it"),
    (
        r"(?i)no space left|disk is full|max_temp_directory_size",
        "cannot grow: the disk is full; free some space",
    ),
    (
        r"File too large",
        "cannot grow: the file size is limited here; raise the limit (ulimit -f)",
    ),
    (r"(?i)conflict", "was changed by another load at the same time; try again"),
    (r"(?i)out of memory", "needs more memory than DuckDB may use (its setting memory_limit)"),
)


def aside(function: Callable[P, T]) -> Callable[P, T]:
    """The function, run on a thread of its own where the main thread calls it: for short calls of DuckDB.

    The main thread must not take Ctrl-C inside of DuckDB: 2.0 makes a RuntimeError of it, and 1.5 loses it (where it
    clears the error of a failed `import pandas`).
    """

    @functools.wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> T:
        if threading.current_thread() is not threading.main_thread():
            return function(*args, **keywords)
        outcome: Future[T] = Future()
        run_in_background(lambda: function(*args, **keywords), outcome)
        try:
            return result_of(outcome)
        except KeyboardInterrupt:
            wait([outcome])
            _join_threads()
            raise

    return call


@aside
def open_database(path: str | os.PathLike[str], *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """A connection to the DuckDB file at a path, made where it does not exist, or to memory (`:memory:`).

    Raises DatabaseError where the file cannot be opened.
    """
    import duckdb

    if os.fspath(path) == MEMORY:
        connection = duckdb.connect(MEMORY, config=dict(_CONFIG))
        connection.execute(f"ATTACH '{MEMORY}' AS {CATALOG} (ROW_GROUP_SIZE {ROW_GROUP_SIZE})")
    else:
        file = str(Path(path).resolve())
        mode = "READ_ONLY" if read_only else "READ_WRITE"
        connection = duckdb.connect(
            f"{MEMORY}{mode} {file}", config={**_CONFIG, "temp_directory": f"{file}.tmp"}
        )
        try:
            _attach(connection, file, mode)
        except duckdb.Error as error:
            connection.close()
            raise database_error(error, path) from None
    connection.execute(f"USE {CATALOG}")
    return connection


def _attach(connection: duckdb.DuckDBPyConnection, file: str, mode: str) -> None:
    import duckdb

    statement = f"ATTACH IF NOT EXISTS {_literal(file)} AS {CATALOG}"
    options = f"TYPE duckdb, {mode}, ROW_GROUP_SIZE {ROW_GROUP_SIZE}"
    try:
        connection.execute(f"{statement} ({options}, STORAGE_VERSION 'v1.5.0')")
    except duckdb.InvalidInputException as error:
        if "storage version" not in str(error):
            raise
        connection.execute(f"{statement} ({options})")


@aside
def cursor(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """A connection of its own to the same database, for another thread or transaction. Closing the first closes it."""
    import duckdb

    try:
        second = connection.cursor()
    except duckdb.ConnectionException:
        raise DatabaseError("the database is closed; connect again") from None
    second.execute(f"USE {CATALOG}")
    return second


def interruptible(connection: duckdb.DuckDBPyConnection, function: Callable[[], T]) -> T:
    """What the function returns. In the main thread, Ctrl-C stops the statement that it runs, and KeyboardInterrupt
    is raised once it has stopped.

    The main thread cannot take the signal while DuckDB works in it (2.0 went on for 20 s), so it only waits.
    """
    if threading.current_thread() is not threading.main_thread():
        return function()
    outcome: Future[T] = Future()
    try:
        run_in_background(function, outcome)
        return result_of(outcome)
    except KeyboardInterrupt:
        stop(connection, outcome)
        raise


def run_in_background(function: Callable[[], T], outcome: Future[T]) -> None:
    """Runs a function on a thread of its own, in the caller's context (OpenTelemetry's current span).

    The caller makes the future, so that it has it whenever Ctrl-C comes.
    """

    def run() -> None:
        if not outcome.set_running_or_notify_cancel():
            return
        try:
            outcome.set_result(function())
        except BaseException as error:  # noqa: BLE001, it is raised where the result is asked for
            outcome.set_exception(error)

    target = contextvars.copy_context().run
    threading.Thread(target=target, args=(run,), name=_THREAD_NAME, daemon=True).start()


def result_of(outcome: Future[T]) -> T:
    """What runs in the background gives, or raises; waits for it, and looks up for Ctrl-C meanwhile.

    A signal that another thread takes, or that comes just before a wait begins, does not end it: Python runs its
    handler when the main thread goes on.
    """
    while not outcome.done():
        with suppress(NotYet):
            outcome.exception(_LOOKS_UP_SECONDS)
    return outcome.result()


def stop(connection: duckdb.DuckDBPyConnection, outcome: Future[T]) -> None:
    """Interrupts what runs on the connection until the function that runs it has ended."""
    outcome.cancel()
    while not outcome.done():  # an interrupt between two statements is lost, so ask again
        connection.interrupt()
        wait([outcome], timeout=0.05)
    _join_threads()


def _join_threads() -> None:
    """Waits for threads that still free what they had of DuckDB: C++ aborts an interpreter that ends meanwhile."""
    for thread in threading.enumerate():
        if thread.name == _THREAD_NAME and thread is not threading.current_thread():
            thread.join(_JOIN_SECONDS)


def database_error(error: Exception, path: str | os.PathLike[str]) -> DatabaseError:
    """DuckDB's error as one sentence about the database at that path."""
    import duckdb

    text = str(error)
    for pattern, sentence in _ERRORS:
        if match := re.search(pattern, text, re.DOTALL):
            pid = match.groupdict().get("pid") or ""
            told = sentence.format(pid=pid, version=duckdb.__version__).replace(" ;", ";")
            return DatabaseError(f"{os.fspath(path)} {told}")
    return DatabaseError(_unknown(error, path))


def statement_error(error: duckdb.Error, path: str | os.PathLike[str]) -> DatabaseError:
    """As `database_error`, for a statement over data: DuckDB's text is looked at only where it cannot quote any."""
    import duckdb

    if isinstance(error, duckdb.ConnectionException):
        return DatabaseError(f"{os.fspath(path)} is closed; connect again")
    outside = (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.TransactionException)
    if isinstance(error, outside):
        for pattern, sentence in _ERRORS:
            if re.search(pattern, str(error), re.DOTALL):
                told = sentence.format(pid="", version=duckdb.__version__)
                return DatabaseError(f"{os.fspath(path)} {told}")
    return DatabaseError(_unknown(error, path))


def _unknown(error: Exception, path: str | os.PathLike[str]) -> str:
    return f"{os.fspath(path)}: DuckDB failed with {type(error).__name__}"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

"""DuckDB's errors, as both versions word them, in one sentence each."""

from __future__ import annotations

import contextvars
import os
import signal
import sys
import threading
from concurrent.futures import Future
from types import SimpleNamespace

import duckdb
import pytest

from fhirpath_otel.databases.duckdb_connection import (
    database_error,
    interruptible,
    result_of,
    run_in_background,
    stop,
)

LOCKED = 'IO Error: Could not set lock on file "/data/x.duckdb": '
NEWER = (
    "IO Error: Trying to read a database file with version number 999, but we can only read versions between 64 and"
    " 68.\nThe database file was created with a newer version of DuckDB."
)
ATTACHED = (
    'Unique file handle conflict: Cannot attach "fhir" - the database file "x" is already attached by "fhir"'
)
READ_ONLY = (
    'Cannot execute statement of type "INSERT" on database "fhir" which is attached in read-only mode!'
)
FULL = 'IO Error: Could not write all bytes to file "/data/x.duckdb": No space left on device'
LIMITED = 'TransactionContext Error: Failed to commit: Could not write all bytes to file "x": File too large'
DAMAGED = (
    "Corrupt database file: computed checksum 16 does not match stored checksum 13 in block at location 0"
)
MEMORY = "Out of Memory Error: could not allocate block of size 256.0 KiB (476.8 MiB/476.8 MiB used)"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            f"{LOCKED}Conflicting lock is held in python3 (PID 12). See also https://duckdb.org/",
            "is in use by another process (PID 12); close it there first",
        ),
        (f"{LOCKED}Resource temporarily unavailable", "is in use by another process; close it there first"),
        (f"Binder Error: {ATTACHED}", "is open in this process in another way; close it there first"),
        (NEWER, f"was written by a newer DuckDB than {duckdb.__version__}: pip install --upgrade duckdb"),
        (DAMAGED, "is damaged; restore it from a copy"),
        (
            'IO Error: Cannot open file "/data/x.duckdb": Permission denied',
            "cannot be opened: permission denied",
        ),
        (
            'IO Error: Cannot open file "x": Read-only file system',
            "is on a read-only disk; open it read-only",
        ),
        (f"Invalid Input Error: {READ_ONLY}", "is opened read-only, so nothing can be stored in it"),
        (LIMITED, "cannot grow: the file size is limited here; raise the limit (ulimit -f)"),
        (FULL, "cannot grow: the disk is full; free some space"),
        (
            "TransactionContext Error: Conflict on tuple deletion!",
            "was changed by another load at the same time; try again",
        ),
        (MEMORY, "needs more memory than DuckDB may use (its setting memory_limit)"),
    ],
)
def test_an_error_is_told_in_one_sentence(text, sentence):
    assert str(database_error(duckdb.Error(text), "x.duckdb")) == f"x.duckdb {sentence}"


def test_an_unknown_error_is_told_by_its_kind():
    error = duckdb.InternalException("Odd Error: this\nand that")
    assert str(database_error(error, "x.duckdb")) == "x.duckdb: DuckDB failed with InternalException"


def test_only_the_main_thread_hands_its_statements_over():
    connection = duckdb.connect()
    assert interruptible(connection, threading.get_ident) != threading.get_ident()
    idents: Future[tuple[int, int]] = Future()
    run_in_background(lambda: (threading.get_ident(), interruptible(connection, threading.get_ident)), idents)
    outer, inner = idents.result()
    assert outer == inner


def test_a_function_keeps_the_context_of_its_caller():
    variable = contextvars.ContextVar("variable", default="nothing")
    token = variable.set("the caller's")
    assert interruptible(duckdb.connect(), variable.get) == "the caller's"
    variable.reset(token)


def test_ctrl_c_that_ends_no_wait_is_seen_all_the_same():
    # One that another thread takes, as one that comes just before the main thread waits.
    connection, stopped = SimpleNamespace(), threading.Event()
    connection.interrupt = stopped.set
    main, seen = threading.get_ident(), []

    def taking():
        while sys._current_frames()[main].f_code is not threading.Condition.wait.__code__:
            pass
        stopped.wait(0.05)  # Now the main thread waits.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        os.kill(os.getpid(), signal.SIGINT)
        seen.append(stopped.wait(20))

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        with pytest.raises(KeyboardInterrupt):
            interruptible(connection, taking)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert seen == [True]


def test_what_a_function_raises_itself_is_no_end_of_the_waiting():
    outcome = Future()
    run_in_background(lambda: (_ for _ in ()).throw(TimeoutError("its own")), outcome)
    with pytest.raises(TimeoutError, match="its own"):
        result_of(outcome)


def test_stopping_what_has_not_begun_ends_at_once():
    connection, outcome, ran = duckdb.connect(), Future(), []
    stop(connection, outcome)
    run_in_background(lambda: ran.append(1), outcome)
    assert outcome.cancelled()
    assert ran == []

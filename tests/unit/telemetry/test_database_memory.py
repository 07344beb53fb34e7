"""Asking the databases of this process: seldom, not twice for one engine, and never one that is being closed."""

from __future__ import annotations

import gc
import os
import threading

import pytest

from fhirpath_otel.telemetry import database_memory
from fhirpath_otel.telemetry.database_memory import DatabaseMemory, InUse, OpenDatabases

SECOND = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_ns = 1

    def __call__(self) -> int:
        return self.now_ns


def test_an_answer_serves_as_long_as_it_may_be_old():
    clock, answers = Clock(), iter([InUse(1, 0), InUse(2, 0)])
    database = DatabaseMemory("duckdb", 1, lambda: next(answers), clock)
    assert database.in_use(SECOND) == (1, 0)
    clock.now_ns += SECOND
    assert database.in_use(SECOND) == (1, 0)
    clock.now_ns += 1
    assert database.in_use(SECOND) == (2, 0)


def test_a_failure_has_no_figures_and_serves_as_long():
    asked = []

    def read() -> InUse:
        asked.append(None)
        raise RuntimeError("closed")

    database = DatabaseMemory("duckdb", 1, read, Clock())
    assert [database.in_use(SECOND), database.in_use(SECOND)] == [None, None]
    assert len(asked) == 1


def test_sums_by_system_count_an_engine_once_however_often_it_is_open():
    databases = OpenDatabases()
    kept = [
        DatabaseMemory("duckdb", "a", lambda: InUse(1, 10)),
        DatabaseMemory("duckdb", "a", lambda: InUse(1, 10)),
        DatabaseMemory("duckdb", "b", lambda: InUse(2, 20)),
        DatabaseMemory("other", "a", lambda: InUse(4, 40)),
    ]
    for database in kept:
        databases.add(database)
    assert databases.totals() == {"duckdb": (3, 30), "other": (4, 40)}


def test_of_an_engine_that_is_open_twice_the_one_that_answers_counts():
    databases = OpenDatabases()
    kept = [DatabaseMemory("duckdb", "a", lambda: InUse(1, 1)) for _ in range(2)]
    for database in kept:
        databases.add(database)
    kept[0].close()
    assert databases.totals() == {"duckdb": (1, 1)}


def test_what_is_gone_or_closed_is_forgotten(monkeypatch):
    monkeypatch.setattr(database_memory, "MOST_DATABASES", 2)
    databases = OpenDatabases()
    closed = DatabaseMemory("duckdb", 1, lambda: InUse(1, 1))
    databases.add(closed)
    databases.add(DatabaseMemory("duckdb", 2, lambda: InUse(2, 2)))
    gc.collect()
    assert databases.totals() == {"duckdb": (1, 1)}
    closed.close()
    assert databases.totals() == {}
    kept = [DatabaseMemory("duckdb", number, lambda: InUse(3, 3)) for number in range(2)]
    for database in kept:
        databases.add(database)
    assert databases.totals() == {"duckdb": (6, 6)}


def test_databases_are_bounded_and_it_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(database_memory, "MOST_DATABASES", 2)
    databases = OpenDatabases()
    kept = [DatabaseMemory("duckdb", number, lambda: InUse(1, 1)) for number in range(4)]
    for database in kept:
        databases.add(database)
    assert databases.totals() == {"duckdb": (2, 2)}
    [record] = caplog.records
    assert "more than 2 databases" in record.getMessage()


def test_closing_waits_for_who_asks_and_others_do_not():
    asked, answer, order = threading.Event(), threading.Event(), []

    def read() -> InUse:
        asked.set()
        assert answer.wait(10)
        order.append("answered")
        return InUse(1, 1)

    database = DatabaseMemory("duckdb", 1, read)
    asking = threading.Thread(target=database.in_use, args=(0,))
    asking.start()
    assert asked.wait(10)
    assert database.in_use(0) is None
    closing = threading.Thread(target=lambda: (database.close(), order.append("closed")))
    closing.start()
    answer.set()
    closing.join()
    asking.join()
    assert order == ["answered", "closed"]
    assert database.in_use(0) is None


def test_closing_waits_for_a_bounded_time(monkeypatch):
    monkeypatch.setattr(database_memory, "CLOSE_SECONDS", 0)
    asked, answer = threading.Event(), threading.Event()
    database = DatabaseMemory("duckdb", 1, lambda: (asked.set(), answer.wait(10)))
    asking = threading.Thread(target=database.in_use, args=(0,))
    asking.start()
    assert asked.wait(10)
    database.close()
    assert asking.is_alive()
    answer.set()
    asking.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_asks_no_database_of_its_parent():
    databases = OpenDatabases()
    kept = DatabaseMemory("duckdb", 1, lambda: InUse(1, 1))
    databases.add(kept)
    with databases._lock:
        child = os.fork()
        if child == 0:
            own = DatabaseMemory("duckdb", 2, lambda: InUse(5, 5))
            empty = databases.totals() == {}
            adding = threading.Thread(target=databases.add, args=(own,), daemon=True)
            adding.start()
            adding.join(10)
            os._exit(0 if empty and databases.totals() == {"duckdb": (5, 5)} else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert databases.totals() == {"duckdb": (1, 1)}

"""DuckDB's own account of its memory."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from fhirpath_otel.databases import duckdb_connection
from fhirpath_otel.databases.duckdb_memory import database_memory, memory_in_use

MB = 10**6


@pytest.fixture
def connection(tmp_path):
    opened = duckdb_connection.open_database(tmp_path / "x.duckdb")
    yield opened
    opened.close()


def test_a_table_in_memory_is_in_use(connection):
    before = memory_in_use(connection)
    connection.execute("CREATE TEMP TABLE t AS SELECT range AS i, hash(range) AS h FROM range(1_000_000)")
    after = memory_in_use(connection)
    assert after.memory - before.memory > 5 * MB
    assert after.temporary == before.temporary == 0


def test_what_does_not_fit_is_in_temporary_files(connection):
    connection.execute("SET memory_limit = '20MB'; SET threads = 1")
    connection.execute("CREATE TEMP TABLE t AS SELECT hash(range) AS h FROM range(5_000_000)")
    assert memory_in_use(connection).temporary > 5 * MB


def test_one_file_is_one_engine_and_each_database_in_memory_its_own(connection, tmp_path):
    path, relative = tmp_path / "x.duckdb", str(tmp_path / "." / "x.duckdb")
    same = [database_memory(connection, "duckdb", name, read_only=False) for name in (path, relative)]
    assert same[0].instance == same[1].instance
    assert database_memory(connection, "duckdb", path, read_only=True).instance != same[0].instance
    others = [duckdb_connection.open_database(":memory:") for _ in range(2)]
    own = [database_memory(other, "duckdb", ":memory:", read_only=False) for other in others]
    assert own[0].instance != own[1].instance
    for other in others:
        other.close()


def test_asking_keeps_no_database_open(tmp_path):
    connection = duckdb_connection.open_database(tmp_path / "x.duckdb")
    memory = database_memory(connection, "duckdb", tmp_path / "x.duckdb", read_only=False)
    assert memory.in_use(0) is not None
    gone = weakref.ref(connection)
    del connection
    gc.collect()
    assert gone() is None
    assert memory.in_use(0) is None


def test_a_closed_database_has_no_figures(connection, tmp_path):
    memory = database_memory(connection, "duckdb", tmp_path / "x.duckdb", read_only=False)
    connection.close()
    assert memory.in_use(0) is None


def test_a_statement_that_runs_holds_up_nobody_who_asks(connection):
    """A statement that runs until it is interrupted, and a question meanwhile."""
    import duckdb

    cursor = duckdb_connection.cursor(connection)
    started, outcome = threading.Event(), []

    def run() -> None:
        started.set()
        try:
            cursor.execute(
                "SELECT count(*) FROM range(10_000_000) a, range(10_000_000) b WHERE hash(a.range, b.range) = 1"
            )
        except duckdb.InterruptException:
            outcome.append("interrupted")

    running = threading.Thread(target=run)
    running.start()
    assert started.wait(10)
    assert memory_in_use(connection).memory >= 0
    assert running.is_alive()
    while running.is_alive():
        cursor.interrupt()
        running.join(0.05)
    assert outcome == ["interrupted"]

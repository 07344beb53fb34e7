"""Handing texts to DuckDB in batches: it stores one while the next is being collected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fhirpath_otel.databases.duckdb_connection import aside, result_of, run_in_background, stop
from fhirpath_otel.databases.duckdb_tables import (
    Counts,
    LoadedType,
    ensure_schema,
    ensure_table,
    insert_statement,
    last_place,
    read_structures,
    settle_copies,
    write_structure,
)
from fhirpath_otel.databases.duckdb_widths import measure, widest
from fhirpath_otel.databases.structure import Seen
from fhirpath_otel.evaluator.model import load_model

if TYPE_CHECKING:
    import duckdb

    Connection = duckdb.DuckDBPyConnection

BATCH_BYTES = 16 << 20
WAITING_BYTES = 3 * BATCH_BYTES
"""Of all types together, before the fullest batch is stored although it is not full."""

MEMORY_LIMIT = "700MB"
"""Of DuckDB during a load; Python takes about 100 MB more."""


@dataclass(slots=True)
class _Batch:
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    size: int = 0


class Store:
    """Collects texts by type, and has DuckDB store a batch of them while the next is being collected."""

    def __init__(self, connection: Connection, seen: dict[str, Seen]) -> None:
        self._connection = connection
        self._seen = seen
        self._pending: Future[Any] | None = None
        self._tables: dict[str, LoadedType] = {}
        self._last_places: dict[str, int] = {}
        self._inserted = dict.fromkeys(seen, 0)
        self._batches = {type_: _Batch() for type_ in seen}
        self._waiting = 0

    def prepare(self) -> None:
        """Begins the transaction, and makes the tables or lets them grow."""
        self._run(self._prepare)

    def _prepare(self) -> None:
        self._connection.execute("BEGIN")
        ensure_schema(self._connection)
        stored = read_structures(self._connection)
        for type_, seen in self._seen.items():
            new = LoadedType(seen.structure(), tuple(sorted({dropped.path for dropped in seen.dropped()})))
            self._tables[type_] = ensure_table(self._connection, type_, new, stored.get(type_))
            self._last_places[type_] = last_place(self._connection, type_)
            write_structure(self._connection, type_, self._tables[type_])

    def add(self, type_: str, id_: str, text: bytes) -> bool:
        """Takes a resource; False if its type was not announced."""
        batch = self._batches.get(type_)
        if batch is None:
            return False
        batch.ids.append(id_)
        batch.texts.append(text.decode())
        batch.size += len(text)
        self._waiting += len(text)
        if batch.size >= BATCH_BYTES:
            self._insert(type_)
        elif self._waiting >= WAITING_BYTES:
            self._insert(max(self._batches, key=lambda name: self._batches[name].size))
        return True

    def flush(self) -> None:
        """Stores what is left."""
        for type_, batch in self._batches.items():
            if batch.size:
                self._insert(type_)

    def commit(self) -> dict[str, Counts]:
        """Removes the copies, ends the transaction, and says what became of each type."""
        counts: dict[str, Counts] = self._run(self._commit)
        return counts

    def _commit(self) -> dict[str, Counts]:
        for type_, table in self._tables.items():
            new = measure(self._connection, type_, table.structure, load_model(), self._last_places[type_])
            widths = widest(table.widths, new)
            write_structure(self._connection, type_, replace(table, widths=widths))
        counts = {
            type_: settle_copies(self._connection, type_, self._last_places[type_], inserted)
            for type_, inserted in self._inserted.items()
        }
        self._connection.execute("COMMIT")
        return counts

    def roll_back(self) -> None:
        """Stops what runs, and undoes everything since the transaction began."""
        if self._pending is not None:
            stop(self._connection, self._pending)
        _roll_back(self._connection)

    def _insert(self, type_: str) -> None:
        batch, self._batches[type_] = self._batches[type_], _Batch()
        self._waiting -= batch.size
        self._inserted[type_] += len(batch.ids)
        statement = insert_statement(type_, self._tables[type_].structure, self._seen[type_].decimals())
        self._start(lambda: self._connection.execute(statement, [batch.ids, batch.texts]))

    def _run(self, function: Callable[[], Any]) -> Any:
        self._start(function)
        return self._finish()

    def _start(self, function: Callable[[], Any]) -> None:
        self._finish()
        self._pending = Future()
        run_in_background(function, self._pending)

    def _finish(self) -> Any:
        if self._pending is None:
            return None
        result = result_of(self._pending)
        self._pending = None
        return result


@aside
def _roll_back(connection: Connection) -> None:
    import duckdb

    with suppress(duckdb.Error):  # there is no transaction any more if DuckDB ended it
        connection.execute("ROLLBACK")


@aside
def _settings(connection: Connection, names: list[str]) -> dict[str, str]:
    query = "SELECT name, value FROM duckdb_settings() WHERE name IN (SELECT unnest($1))"
    return dict(connection.execute(query, [names]).fetchall())


@aside
def _set(connection: Connection, name: str, value: str) -> None:
    connection.execute(f"SET GLOBAL {name} = '{value}'")


@contextmanager
def bounded_memory(connection: Connection, *, limited: bool) -> Iterator[None]:
    """Keeps DuckDB from holding more than it needs while data pass through it.

    Without a limit it keeps every block that it wrote, and five full row groups a type. A database in memory is
    not limited: it holds all data by itself.
    """
    import duckdb

    before = _settings(connection, ["memory_limit", "write_buffer_row_group_count"])
    wanted = {"write_buffer_row_group_count": "1"}
    if limited and _bytes(before["memory_limit"]) > _bytes(MEMORY_LIMIT):
        wanted["memory_limit"] = MEMORY_LIMIT
    try:
        for name in wanted.keys() & before.keys():
            _set(connection, name, wanted[name])
        yield
    finally:
        # Where a broken database takes no statement, its error is the one to tell.
        with suppress(duckdb.Error):
            for name in wanted.keys() & before.keys():
                # A size is printed with one digit, cut off: half a digit more prints the same.
                _set(connection, name, re.sub(r"\.\d", r"\g<0>5", before[name]))


def _bytes(size: str) -> float:
    """The bytes of `700MB` or `18.8 GiB`, as DuckDB writes sizes."""
    match = re.fullmatch(r"([\d.]+) *([KMGT]?)(i?)B|([\d.]+) bytes", size)
    if match is None:
        return float("inf")
    number, unit, binary, plain = match.groups()
    return float(plain) if plain else float(number) * (1024 if binary else 1000) ** " KMGT".index(unit or " ")

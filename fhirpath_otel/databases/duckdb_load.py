"""Loading FHIR resources into DuckDB, all or nothing.

Two passes over the files. The first reads them in Python: it finds whatever is wrong, with its place, and learns the
structure of each type. Then the tables grow once, and the second pass hands the texts to DuckDB in batches, which
makes columns of them while the next batch is being read. Everything of a run is one transaction.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from fhirpath_otel.databases.duckdb_connection import cursor, database_error, in_background, stop
from fhirpath_otel.databases.duckdb_tables import (
    ConflictError,
    Counts,
    LoadedType,
    ensure_schema,
    ensure_table,
    insert_statement,
    last_place,
    parts_of,
    settle_copies,
    structures,
)
from fhirpath_otel.databases.sources import Inputs, Reader, discover
from fhirpath_otel.databases.structure import Dropped, Seen
from fhirpath_otel.errors import LoadError, UsageError
from fhirpath_otel.evaluator.model import load_model

if TYPE_CHECKING:
    import duckdb

    Connection = duckdb.DuckDBPyConnection

__all__ = [
    "Counts",
    "Dropped",
    "LoadReport",
    "LoadedType",
    "Progress",
    "Skipped",
    "ensure_schema",
    "load",
    "structures",
]

Progress = Callable[[int, int], None]

BATCH_BYTES = 16 << 20
WAITING_BYTES = 3 * BATCH_BYTES
"""Of all types together, before the fullest batch is stored although it is not full."""

MEMORY_LIMIT = "700MB"
MAX_SKIPPED = 100
_FIRST_PASS = 0.25


@dataclass(frozen=True, slots=True)
class Skipped:
    """What `on_error="skip"` left out: a resource, or a whole file where `line` is None. `line` is 1-based."""

    path: str
    line: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did. `skipped` lists the first 100 of `skipped_count`; `bytes` are those of the resources' texts.

    `ignored` are the files of folders that are not to be loaded by their names. `dropped` are the paths of the data
    that SQL does not see: the model does not know them, or a value has the wrong shape. They remain in the texts.
    """

    types: dict[str, Counts]
    files: int
    bytes: int
    seconds: float
    skipped: tuple[Skipped, ...]
    skipped_count: int
    entries_without_resource: int
    ignored: tuple[str, ...]
    dropped: tuple[Dropped, ...]

    @property
    def resources(self) -> int:
        """All resources that were read and are in the database now."""
        return sum(counts.loaded + counts.replaced + counts.unchanged for counts in self.types.values())


def load(
    connection: Connection,
    paths: Iterable[str | os.PathLike[str]],
    *,
    on_error: str = "stop",
    progress: Progress | None = None,
) -> LoadReport:
    """Loads the resources of NDJSON files, JSON documents, gzipped or not, and folders of these.

    `on_error` is `stop`, or `skip` to leave out and list what is broken. `progress` is called with bytes done and
    bytes in all. Raises UsageError, LoadError and DatabaseError; after these, and after KeyboardInterrupt, nothing of
    the run is stored.
    """
    if on_error not in ("stop", "skip"):
        raise UsageError(f"on_error is 'stop' or 'skip', not {on_error!r}")
    return _Run(discover(paths), skip=on_error == "skip", progress=progress or _no_progress).into(connection)


class _Run:
    """One call of `load`."""

    def __init__(self, inputs: Inputs, *, skip: bool, progress: Progress) -> None:
        self._inputs = inputs
        self._skip = skip
        self._progress = progress
        self._model = load_model()
        self._states = {file: _state(file) for file in inputs.files}
        self._total = sum(size for size, _ in self._states.values())
        self._skipped: list[Skipped] = []
        self._skipped_count = 0
        self._bytes = 0

    def into(self, connection: Connection) -> LoadReport:
        started = perf_counter()
        reader = self._reader(self._reject, 0.0, _FIRST_PASS)
        seen = self._survey(reader)
        counts = self._store(connection, seen) if seen else {}
        self._progress(self._total, self._total)
        return LoadReport(
            types=dict(sorted(counts.items())),
            files=len(self._inputs.files),
            bytes=self._bytes,
            seconds=perf_counter() - started,
            skipped=tuple(self._skipped),
            skipped_count=self._skipped_count,
            entries_without_resource=reader.entries_without_resource,
            ignored=self._inputs.ignored,
            dropped=tuple(dropped for one in seen.values() for dropped in one.dropped()),
        )

    def _survey(self, reader: Reader) -> dict[str, Seen]:
        """The first pass: what the data looks like, and what is wrong with it."""
        seen: dict[str, Seen] = {}
        for file in self._inputs.files:
            for resource in reader.read(file):
                one = seen.get(resource.type)
                if one is None:
                    one = seen[resource.type] = Seen(self._model, resource.type)
                one.learn(resource.text)
                self._bytes += len(resource.text)
        return seen

    def _store(self, connection: Connection, seen: dict[str, Seen]) -> dict[str, Counts]:
        """The second pass, in one transaction."""
        import duckdb

        stored = structures(connection)
        own = cursor(connection)
        file = _file_of(own)
        try:
            with _bounded_memory(own, limited=file is not None):
                own.execute("BEGIN")
                store = _Store(own, seen, stored)
                try:
                    store.prepare()
                    self._feed(store)
                    counts = store.settle()
                    store.run(lambda: own.execute("COMMIT"))
                except BaseException:
                    store.roll_back()
                    raise
        except ConflictError as conflict:
            raise self._conflict(conflict) from None
        except duckdb.Error as error:
            raise database_error(error, file or "the database in memory") from None
        finally:
            own.close()
        return counts

    def _feed(self, store: _Store) -> None:
        reader = self._reader(lambda _: None, _FIRST_PASS, 1.0)
        for file in self._inputs.files:
            for resource in reader.read(file):
                if not store.add(resource.type, resource.id, resource.text):
                    raise LoadError("it changed while it was being read; load it again", file)
            if _state(file) != self._states[file]:
                raise LoadError("it changed while it was being read; load it again", file)
        store.flush()

    def _conflict(self, conflict: ConflictError) -> LoadError:
        """Both places of an id that came with two texts: read once more, only for this."""
        first: tuple[str, int, bytes] | None = None
        for file in self._inputs.files:
            for resource in self._reader(lambda _: None, 1.0, 1.0).read(file):
                if (resource.type, resource.id) != (conflict.resource_type, conflict.id):
                    continue
                if first is None:
                    first = (file, resource.line, resource.text)
                elif first[2] != resource.text:
                    place = f"{first[0]}:{first[1]}"
                    message = (
                        f"{conflict} is at {place} already, with a different content; remove one of them"
                    )
                    return LoadError(message, file, resource.line)
        return LoadError(f"{conflict} came twice with different contents", self._inputs.files[0])

    def _reader(self, reject: Callable[[LoadError], None], start: float, end: float) -> Reader:
        done = start * self._total

        def advance(size: int) -> None:
            nonlocal done
            done = min(done + size * (end - start), end * self._total)
            self._progress(int(done), self._total)

        return Reader(self._model.resource_types, reject, advance)

    def _reject(self, error: LoadError) -> None:
        if not self._skip:
            raise error
        self._skipped_count += 1
        if len(self._skipped) < MAX_SKIPPED:
            self._skipped.append(Skipped(error.path, error.line, error.message))


@dataclass(slots=True)
class _Batch:
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    size: int = 0


class _Store:
    """Collects texts by type, and has DuckDB store a batch of them while the next is being collected."""

    def __init__(self, connection: Connection, seen: dict[str, Seen], stored: dict[str, LoadedType]) -> None:
        self._connection = connection
        self._seen = seen
        self._stored = stored
        self._pending: Future[Any] | None = None
        self._parts = int(connection.execute("SELECT current_setting('threads')").fetchall()[0][0])
        self._structures: dict[str, Any] = {}
        self._last_places: dict[str, int] = {}
        self._inserted = dict.fromkeys(seen, 0)
        self._batches = {type_: _Batch() for type_ in seen}
        self._waiting = 0

    def prepare(self) -> None:
        """Makes the tables, or lets them grow."""
        self.run(lambda: ensure_schema(self._connection))
        for type_, seen in self._seen.items():
            new = LoadedType(seen.structure(), tuple(sorted({dropped.path for dropped in seen.dropped()})))
            self.run(partial(self._prepare, type_, new))

    def _prepare(self, type_: str, new: LoadedType) -> None:
        self._structures[type_] = ensure_table(self._connection, type_, new, self._stored.get(type_))
        self._last_places[type_] = last_place(self._connection, type_)

    def _settle(self, type_: str) -> Counts:
        return settle_copies(self._connection, type_, self._last_places[type_], self._inserted[type_])

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
        for type_, batch in self._batches.items():
            if batch.size:
                self._insert(type_)

    def settle(self) -> dict[str, Counts]:
        """Removes the copies, and says what became of each type."""
        return {type_: self.run(partial(self._settle, type_)) for type_ in self._inserted}

    def run(self, function: Callable[[], Any]) -> Any:
        """What a statement gives, once those before it are done."""
        self._start(function)
        return self._finish()

    def roll_back(self) -> None:
        import duckdb

        if self._pending is not None:
            stop(self._connection, self._pending)
        with suppress(duckdb.Error):  # there is no transaction any more if DuckDB ended it
            self._connection.execute("ROLLBACK")

    def _insert(self, type_: str) -> None:
        batch, self._batches[type_] = self._batches[type_], _Batch()
        self._waiting -= batch.size
        self._inserted[type_] += len(batch.ids)
        lists = zip(parts_of(batch.ids, self._parts), parts_of(batch.texts, self._parts), strict=True)
        parameters = [values for pair in lists for values in pair]
        statement = insert_statement(
            type_,
            self._structures[type_],
            parts=len(parameters) // 2,
            decimal_lists=self._seen[type_].has_decimal_lists(),
        )
        self._start(lambda: self._connection.execute(statement, parameters))

    def _start(self, function: Callable[[], Any]) -> None:
        self._finish()
        self._pending = in_background(function)

    def _finish(self) -> Any:
        if self._pending is None:
            return None
        result = self._pending.result()
        self._pending = None
        return result


@contextmanager
def _bounded_memory(connection: Connection, *, limited: bool) -> Iterator[None]:
    """Keeps DuckDB from holding more than it needs while data pass through it.

    Without a limit it keeps every block that it wrote, and five full row groups a type. A database in memory is
    not limited: it holds all data by itself.
    """
    wanted = {"write_buffer_row_group_count": "1"}
    before = {name: _setting(connection, name) for name in ("write_buffer_row_group_count", "memory_limit")}
    if limited and _bytes(before["memory_limit"]) > _bytes(MEMORY_LIMIT):
        wanted["memory_limit"] = MEMORY_LIMIT
    for name, value in wanted.items():
        connection.execute(f"SET GLOBAL {name} = '{value}'")
    try:
        yield
    finally:
        for name in wanted:
            connection.execute(f"SET GLOBAL {name} = '{before[name]}'")


def _setting(connection: Connection, name: str) -> str:
    return str(connection.execute(f"SELECT current_setting('{name}')").fetchall()[0][0])


def _bytes(size: str) -> float:
    """The bytes of `700MB` or `18.8 GiB`, as DuckDB writes sizes."""
    match = re.fullmatch(r"([\d.]+) *([KMGT]?)(i?)B|([\d.]+) bytes", size)
    if match is None:
        return float("inf")
    number, unit, binary, plain = match.groups()
    return float(plain) if plain else float(number) * (1024 if binary else 1000) ** " KMGT".index(unit or " ")


def _file_of(connection: Connection) -> str | None:
    query = "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"
    path = connection.execute(query).fetchall()[0][0]
    return str(path) if path else None


def _state(file: str) -> tuple[int, int]:
    status = Path(file).stat()
    return status.st_size, status.st_mtime_ns


def _no_progress(done: int, total: int) -> None:
    pass

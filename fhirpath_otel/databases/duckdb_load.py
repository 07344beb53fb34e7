"""Loading FHIR resources into DuckDB, all or nothing.

Two passes over the files. The first reads them in Python: it finds whatever is wrong, with its place, and learns the
structure of each type. Then the tables grow once, and the second pass hands the texts to DuckDB in batches, which
makes columns of them while the next batch is being read. Everything of a run is one transaction.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from fhirpath_otel.databases.duckdb_connection import CATALOG, MEMORY, aside, cursor, database_error
from fhirpath_otel.databases.duckdb_store import Store, bounded_memory
from fhirpath_otel.databases.duckdb_tables import (
    ConflictError,
    Counts,
    LoadedType,
    ensure_schema,
    structures,
)
from fhirpath_otel.databases.problems import without_advice
from fhirpath_otel.databases.sources import Header, Inputs, Reader, discover, read_header
from fhirpath_otel.databases.structure import Dropped, Seen
from fhirpath_otel.databases.survey import Survey
from fhirpath_otel.errors import DatabaseError, LoadError, UsageError
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

MAX_SKIPPED = 100
_FIRST_PASS, _SECOND_PASS = 0.2, 0.75
"""The shares of the passes in the time of a load; the rest is for the commit."""


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
    the run is stored, unless Ctrl-C came so late that the commit (up to a second) was under way.
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
        self._done = 0.0
        self._skipped: list[Skipped] = []
        self._skipped_count = 0
        self._bytes = 0

    def into(self, connection: Connection) -> LoadReport:
        started = perf_counter()
        file = _writable_file(connection)
        survey = Survey(self._model)
        reader = self._reader(self._reject, _FIRST_PASS, survey.read_header)
        self._look(reader, survey)
        seen = survey.seen
        counts = self._store(connection, file, seen) if seen else {}
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

    def _look(self, reader: Reader, survey: Survey) -> None:
        """The first pass: what the data looks like, and what is wrong with it."""
        for file in self._inputs.files:
            for resource in reader.read(file):
                survey.learn(resource)
                self._bytes += len(resource.text)

    def _store(self, connection: Connection, file: str, seen: dict[str, Seen]) -> dict[str, Counts]:
        """The second pass, in one transaction."""
        import duckdb

        own = cursor(connection)
        try:
            with bounded_memory(own, limited=file != MEMORY):
                store = Store(own, seen)
                try:
                    store.prepare()
                    self._feed(store)
                    counts = store.commit()
                except BaseException:
                    store.roll_back()
                    raise
        except ConflictError as conflict:
            raise self._conflict(conflict) from None
        except duckdb.Error as error:
            raise database_error(error, file) from None
        finally:
            own.close()
        return counts

    def _feed(self, store: Store) -> None:
        reader = self._reader(_pass_over, _SECOND_PASS, read_header)
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
            for resource in Reader(self._model.resource_types, _pass_over).read(file):
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

    def _reader(
        self, reject: Callable[[LoadError], None], share: float, header: Callable[[bytes], Header]
    ) -> Reader:
        """A reader whose bytes are that share of the progress."""

        def advance(size: int) -> None:
            self._done = min(self._done + size * share, self._total)
            self._progress(int(self._done), self._total)

        return Reader(self._model.resource_types, reject, advance, header)

    def _reject(self, error: LoadError) -> None:
        if not self._skip:
            raise error
        self._skipped_count += 1
        if len(self._skipped) < MAX_SKIPPED:
            self._skipped.append(Skipped(error.path, error.line, without_advice(error.message)))


@aside
def _writable_file(connection: Connection) -> str:
    """The file of the database, `:memory:` for none. Raises DatabaseError where it is opened read-only."""
    query = "SELECT path, readonly FROM duckdb_databases() WHERE database_name = $1"
    own = cursor(connection)
    try:
        path, read_only = own.execute(query, [CATALOG]).fetchall()[0]
    finally:
        own.close()
    if read_only:
        raise DatabaseError(f"{path} is opened read-only, so nothing can be loaded into it")
    return path or MEMORY


def _state(file: str) -> tuple[int, int]:
    status = Path(file).stat()
    return status.st_size, status.st_mtime_ns


def _no_progress(done: int, total: int) -> None:
    pass


def _pass_over(error: LoadError) -> None:
    """For what the first pass told already."""

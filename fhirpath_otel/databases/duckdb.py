"""FHIR resources in a DuckDB database, and the evaluation of FHIRPath over them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from fhirpath_otel import settings
from fhirpath_otel.databases import duckdb_connection, duckdb_load
from fhirpath_otel.databases.duckdb_fragments import ERROR_MARK, quoted
from fhirpath_otel.databases.duckdb_numbers import Digits
from fhirpath_otel.databases.duckdb_sql import Statement, digits_query, print_statement
from fhirpath_otel.databases.values import Convert, converter
from fhirpath_otel.evaluator import pipeline
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.plan import NotExpressible, Plan, SeveralItems

if TYPE_CHECKING:
    import duckdb

    from fhirpath_otel.databases.duckdb_load import LoadedType, LoadReport, Progress
    from fhirpath_otel.evaluator.result import Result, Row
    from fhirpath_otel.telemetry.recorder import Recorder

ROWS_PER_BATCH = 8_192
RESOURCES_PER_BATCH = 512
MOST_IDLE_CURSORS = 8


class DuckDBDatabase:
    """A DuckDB database file, or `:memory:`; made by `fhirpath_otel.connect`.

    Threads may share one: each evaluation runs on a cursor of its own, so evaluations wait for each other only where
    DuckDB's own threads are all busy; a load waits for nobody, and results that are being read keep the data that
    they began with. In the main thread, Ctrl-C interrupts a statement at once; for that it runs on a second thread,
    which costs about 0.1 ms.
    """

    system = "duckdb"

    def __init__(self, path: str | Path, recorder: Recorder, *, read_only: bool = False) -> None:
        self.recorder = recorder
        self.compiled = pipeline.CompiledCache(settings.current().parser_cache_entries)
        self._connection = duckdb_connection.open_database(path, read_only=read_only)
        self._lock = threading.Lock()
        self._version = 0
        self._types: dict[str, LoadedType] | None = None
        self._digits: dict[tuple[str, tuple[str, ...]], Digits] = {}
        self._idle: list[duckdb.DuckDBPyConnection] = []

    def load(
        self, *paths: str | Path, on_error: str = "stop", progress: Progress | None = None
    ) -> LoadReport:
        """Loads NDJSON, gzip, Bundles, single resources, and folders of these, all or nothing.

        `on_error` is `stop` or `skip`. Raises LoadError with the file and the line, UsageError, DatabaseError.
        """
        try:
            return duckdb_load.load(self._connection, paths, on_error=on_error, progress=progress)
        finally:
            with self._lock:
                self._version += 1
                self._types = None
                self._digits = {}

    def evaluate(self, expression: str, *, resource_type: str | None = None, mode: str = "auto") -> Result:
        """Evaluates a FHIRPath expression for every resource of its root type, or of `resource_type`.

        `mode` is `auto` (SQL where possible), `sql` or `memory`. Raises ExpressionSyntaxError, ExpressionTypeError,
        UsageError and DatabaseError; reading the result can raise EvaluationError.
        """
        return pipeline.evaluate(self, expression, resource_type=resource_type, mode=mode)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A cursor on the same database, for SQL of one's own: a table a resource type, `(id, raw, r)`."""
        return duckdb_connection.cursor(self._connection)

    def close(self) -> None:
        """Closes the database; results that are still being read fail."""
        self._connection.close()

    def __enter__(self) -> DuckDBDatabase:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what the pipeline needs

    def data_version(self) -> int:
        """Counts the loads of this object."""
        return self._version

    def resource_types(self) -> frozenset[str]:
        """The types that are loaded."""
        return frozenset(self._loaded())

    def print(self, plan: Plan) -> Statement:
        """The statement for a plan over the data as it is loaded now. Raises NotExpressible."""
        loaded = self._loaded()[plan.resource_type]

        def digits(path: tuple[str, ...]) -> Digits:
            return self._widest(plan, loaded, path)

        return print_statement(plan, loaded.structure, loaded.dropped, digits)

    def execute(self, statement: Statement) -> _Rows:
        """Starts a statement."""
        model = load_model()
        converters = [converter(column.structure, column.type_name, model) for column in statement.columns]
        return _Rows(self, statement.text, statement.parameters, converters, ROWS_PER_BATCH)

    def resources(self, resource_type: str) -> _Rows:
        """The (id, text) of every resource of a type, in the order of loading."""
        text = f"SELECT id, raw FROM {quoted(resource_type)}"
        return _Rows(self, text, (), [None], RESOURCES_PER_BATCH)

    def borrow_cursor(self) -> duckdb.DuckDBPyConnection:
        """A cursor for one statement, to be given back; making one takes 0.2 ms."""
        try:
            return self._idle.pop()
        except IndexError:
            return self.cursor()

    def return_cursor(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Takes a borrowed cursor back."""
        if len(self._idle) < MOST_IDLE_CURSORS:
            self._idle.append(cursor)
        else:
            cursor.close()

    def _loaded(self) -> dict[str, LoadedType]:
        with self._lock:
            if self._types is None:
                self._types = duckdb_load.structures(self._connection)
            return self._types

    def _widest(self, plan: Plan, loaded: LoadedType, path: tuple[str, ...]) -> Digits:
        """The widest number at a path: read from the data once for each load."""
        key = (plan.resource_type, path)
        found = self._digits.get(key)
        if found is None:
            text = digits_query(plan.resource_type, loaded.structure, path)
            whole, fraction, irregular = self.cursor().execute(text).fetchone()  # type: ignore[misc]
            if irregular:
                reason = "the data has decimals that are not written as plain digits"
                raise NotExpressible(path[-1], reason, plan.root.start, plan.root.end)
            found = self._digits[key] = (whole or 1, fraction or 0)
        return found


class _Rows:
    """The rows of one statement, fetched in batches from a cursor of its own."""

    in_memory_active_ns = None

    def __init__(
        self,
        database: DuckDBDatabase,
        text: str,
        parameters: Sequence[Any],
        converters: list[Convert | None],
        batch_size: int,
    ) -> None:
        self.sql_active_ns = 0
        self._database = database
        self._cursor: duckdb.DuckDBPyConnection | None = database.borrow_cursor()
        self._converters = converters
        self._batch_size = batch_size
        self._call(lambda cursor: cursor.execute(text, parameters))

    def batches(self) -> Iterator[list[Row]]:
        while batch := self._call(lambda cursor: cursor.fetchmany(self._batch_size)):
            yield self._converted(batch)

    def close(self) -> None:
        """Gives the cursor back."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            self._database.return_cursor(cursor)

    def _converted(self, batch: list[tuple[Any, ...]]) -> list[Row]:
        if self._converters == [None]:
            return batch
        if len(self._converters) == 1:
            (convert,) = self._converters
            assert convert is not None
            return [(id_, convert(value)) for id_, value in batch]
        return [(row[0], self._first(row[1:])) for row in batch]

    def _first(self, values: tuple[Any, ...]) -> Any:
        """The one column that has a value: a choice is stored as a column for each type."""
        for convert, value in zip(self._converters, values, strict=True):
            if value is not None:
                return value if convert is None else convert(value)
        return None

    def _call(self, function: Callable[[duckdb.DuckDBPyConnection], Any]) -> Any:
        cursor = self._cursor
        assert cursor is not None
        started_ns = perf_counter_ns()
        try:
            return duckdb_connection.interruptible(cursor, lambda: function(cursor))
        except Exception as error:  # noqa: BLE001 -- DuckDB's class for our mark differs between versions
            raise _known_error(error) or error from None
        finally:
            self.sql_active_ns += perf_counter_ns() - started_ns


def _known_error(error: Exception) -> Exception | None:
    _, mark, place = str(error).partition(f"{ERROR_MARK}:")
    if not mark:
        return None
    start, end = place.split(":")[:2]
    return SeveralItems(int(start), int(end.split()[0]))

"""FHIR resources in a DuckDB database, and the evaluation of FHIRPath over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from fhirpath_otel import settings
from fhirpath_otel.databases import duckdb_connection, duckdb_load
from fhirpath_otel.databases.duckdb_fragments import ERROR_MARK, quoted
from fhirpath_otel.databases.duckdb_loaded import loaded_data
from fhirpath_otel.databases.duckdb_memory import database_memory
from fhirpath_otel.databases.duckdb_sql import Statement, print_statement
from fhirpath_otel.databases.values import Convert, converter
from fhirpath_otel.evaluator import pipeline
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.plan import Plan, SeveralItems

if TYPE_CHECKING:
    import duckdb

    from fhirpath_otel.databases.duckdb_load import LoadReport, Progress
    from fhirpath_otel.evaluator.result import Result, Row
    from fhirpath_otel.telemetry.recorder import Recorder

ROWS_PER_BATCH = 8_192
RESOURCES_PER_BATCH = 512
MOST_IDLE_CURSORS = 8


class DuckDBDatabase:
    """A DuckDB database file, or `:memory:`; made by `fhirpath_otel.connect`.

    Threads may share one, and several may be open on one file: each evaluation runs on a cursor of its own, so
    evaluations wait for each other only where DuckDB's own threads are all busy. Loads into one file wait for each
    other; evaluations do not wait for them, and results that are being read keep the data that they began with. In
    the main thread, Ctrl-C interrupts a statement at once; for that it runs on a second thread, which costs about
    0.1 ms. A forked process opens its own.
    """

    system = "duckdb"

    def __init__(self, path: str | Path, recorder: Recorder, *, read_only: bool = False) -> None:
        self.recorder = recorder
        chosen = settings.current()
        self.compiled = pipeline.CompiledCache(chosen.parser_cache_entries, chosen.parser_cache_bytes)
        self.is_new = str(path) != duckdb_connection.MEMORY and not Path(path).exists()
        """Whether opening it made the file."""
        self._connection = duckdb_connection.open_database(path, read_only=read_only)
        self.path = path
        self._loaded = loaded_data(path)
        self.memory = database_memory(self._connection, self.system, path, read_only=read_only)
        recorder.databases.add(self.memory)
        self._idle: list[duckdb.DuckDBPyConnection] = []

    def load(
        self, *paths: str | Path, on_error: str = "stop", progress: Progress | None = None
    ) -> LoadReport:
        """Loads NDJSON, gzip, Bundles, single resources, and folders of these, all or nothing.

        `on_error` is `stop` or `skip`. Raises LoadError with the file and the line, UsageError, DatabaseError.
        """
        with self._loaded.change():
            return duckdb_load.load(self._connection, paths, on_error=on_error, progress=progress)

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
        self.memory.close()
        self._connection.close()

    def __enter__(self) -> DuckDBDatabase:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what the pipeline needs

    def data_version(self) -> int:
        """Counts the loads of this process into the file."""
        return self._loaded.version

    def resource_types(self) -> frozenset[str]:
        """The types that are loaded."""
        return frozenset(self._loaded.types(self._connection))

    def print(self, plan: Plan) -> Statement:
        """The statement for a plan over the data as it is loaded now. Raises NotExpressible."""
        loaded = self._loaded.types(self._connection)[plan.resource_type]
        return print_statement(plan, loaded)

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


class _Rows:
    """The rows of one statement, fetched in batches from a cursor of its own."""

    in_memory_active_ns = None
    operators = ()

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
        self._exhausted = False
        self._call(lambda cursor: cursor.execute(text, parameters))

    def batches(self) -> Iterator[list[Row]]:
        while batch := self._call(lambda cursor: cursor.fetchmany(self._batch_size)):
            yield self._converted(batch)
        self._exhausted = True

    def close(self) -> None:
        """Gives the cursor back; one with rows left would hold its transaction open, so it is closed."""
        cursor, self._cursor = self._cursor, None
        if cursor is None:
            return
        if self._exhausted:
            self._database.return_cursor(cursor)
        else:
            cursor.close()

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
        except Exception as error:
            self._fail(error)
            raise
        finally:
            self.sql_active_ns += perf_counter_ns() - started_ns

    def _fail(self, error: Exception) -> None:
        """Raises what DuckDB's error means here. Its text can hold values of resources, so it does not come along."""
        import duckdb

        if not isinstance(error, duckdb.Error):
            return
        _, mark, place = str(error).partition(f"{ERROR_MARK}:")
        if mark:
            start, end = place.split(":")[:2]
            raise SeveralItems(int(start), int(end.split()[0])) from None
        raise duckdb_connection.statement_error(error, self._database.path) from None

"""What this process knows of the data in a database file, whichever of its objects asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from fhirpath_otel.databases.duckdb_connection import MEMORY
from fhirpath_otel.databases.duckdb_tables import structures

if TYPE_CHECKING:
    import duckdb

    from fhirpath_otel.databases.duckdb_tables import LoadedType


class LoadedData:
    """The types that are loaded into one file. `version` changes whenever they may have changed."""

    def __init__(self) -> None:
        self.version = 0
        self._types: dict[str, LoadedType] | None = None
        self._lock = Lock()
        self._loading = Lock()

    def types(self, connection: duckdb.DuckDBPyConnection) -> dict[str, LoadedType]:
        """The resource types by name, read once for each version."""
        with self._lock:
            if self._types is None:
                self._types = structures(connection)
            return self._types

    @contextmanager
    def change(self) -> Iterator[None]:
        """For the one load at a time: of two at once, neither would see the other's copies of an id."""
        with self._loading:
            try:
                yield
            finally:
                with self._lock:
                    self.version += 1
                    self._types = None


_known: WeakValueDictionary[str, LoadedData] = WeakValueDictionary()
_known_lock = Lock()


def loaded_data(path: str | Path) -> LoadedData:
    """What is known of the file; of a database in memory nobody else can know anything."""
    if str(path) == MEMORY:
        return LoadedData()
    with _known_lock:
        return _known.setdefault(str(Path(path).resolve()), LoadedData())

"""The tables of a DuckDB database: one a resource type, `(id, raw, r)`.

`raw` is the resource's text, the truth; `r` is a STRUCT of the elements that were seen, made from it for queries.
The structure of each `r` is kept in `fhirpath_otel.structures`, and grows with the data.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from fhirpath_otel.databases.duckdb_connection import aside, cursor
from fhirpath_otel.databases.duckdb_widths import Widths
from fhirpath_otel.databases.structure import Decimals, Structure, merge, sql_type
from fhirpath_otel.errors import DatabaseError

if TYPE_CHECKING:
    import duckdb

    Connection = duckdb.DuckDBPyConnection

# DuckDB's JSON functions take numbers through a double: 1.00 becomes 1.0. So decimals become strings first. A quoted
# word is a key if a number follows after a colon: inside a string, a quote has a backslash before it. With the keys in
# the pattern this takes a third of the time of a pattern for any key.
_QUOTED = r"""regexp_replace(raw, '("(?:{keys})"\s*:\s*)(-?\d[\d.eE+-]*)', '\1"\2"', 'g')"""
# Numbers in lists have no key before them. Here every string and number is marked with control characters, which JSON
# text cannot have: a string gets two after it, a number one on each side.
_QUOTED_IN_LISTS = (
    r"""replace(replace(regexp_replace(raw, '("(?:[^"\\]|\\.)*")|(-?\d[\d.eE+-]*)', '\1' || chr(1) || '\2' || chr(1),"""
    r""" 'g'), chr(1) || chr(1), ''), chr(1), '"')"""
)


@dataclass(frozen=True, slots=True)
class LoadedType:
    """The structure of a type's column `r`, and the paths of the data that it does not, or not always, hold.

    `widths` are those of its decimals.
    """

    structure: dict[str, Structure]
    dropped: tuple[str, ...]
    widths: Widths = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the resources of one type: new ones, ones with a new text, and ones that were there already.

    `repeated` are further copies in the same run, with the same text: of these, one is stored.
    """

    loaded: int = 0
    replaced: int = 0
    unchanged: int = 0
    repeated: int = 0


class ConflictError(Exception):
    """One id came twice with different texts in one run."""

    def __init__(self, resource_type: str, id_: str) -> None:
        self.resource_type = resource_type
        self.id = id_
        super().__init__(f"{resource_type}/{id_}")


@aside
def structures(connection: Connection) -> dict[str, LoadedType]:
    """The resource types that are loaded, by name; empty for a database that nothing was loaded into."""
    import duckdb

    reading = cursor(connection)
    try:
        return read_structures(reading)
    except duckdb.CatalogException:
        return {}
    finally:
        reading.close()


def read_structures(connection: Connection) -> dict[str, LoadedType]:
    """As `structures`, inside the transaction of a connection. Raises duckdb.CatalogException before the first load."""
    import duckdb

    query = "SELECT resource_type, structure, dropped, widths FROM fhirpath_otel.structures ORDER BY resource_type"
    try:
        rows = connection.execute(query).fetchall()
    except duckdb.BinderException:
        raise DatabaseError(
            "this database was made by another version of fhirpath-otel; load the data into a new one"
        ) from None
    return {type_: _loaded_type(*texts) for type_, *texts in rows}


def _loaded_type(structure: str, dropped: str, widths: str) -> LoadedType:
    digits = {path: None if width is None else tuple(width) for path, width in json.loads(widths).items()}
    return LoadedType(json.loads(structure), tuple(json.loads(dropped)), digits)


def ensure_schema(connection: Connection) -> None:
    """Makes the table of structures where it is missing."""
    connection.execute("CREATE SCHEMA IF NOT EXISTS fhirpath_otel")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS fhirpath_otel.structures"
        "(resource_type VARCHAR, structure VARCHAR, dropped VARCHAR, widths VARCHAR)"
    )


def ensure_table(
    connection: Connection, resource_type: str, seen: LoadedType, stored: LoadedType | None
) -> LoadedType:
    """Makes the table of a type, or lets it grow by what was seen. Gives what it is now."""
    import duckdb

    if stored is None:
        structure = seen.structure
        columns = f"(id VARCHAR, raw VARCHAR USING COMPRESSION zstd, r {sql_type(structure)})"
        try:
            connection.execute(f'CREATE TABLE "{resource_type}"{columns}')
        except duckdb.CatalogException:
            raise DatabaseError(
                f"this database has a table {resource_type} that was not made by a load; use another database"
            ) from None
    else:
        _check_column(connection, resource_type, stored.structure)
        structure = cast("dict[str, Structure]", merge(stored.structure, seen.structure))
        if structure != stored.structure:
            connection.execute(f'ALTER TABLE "{resource_type}" ALTER r TYPE {sql_type(structure)}')
    dropped = tuple(sorted({*seen.dropped, *(stored.dropped if stored else ())}))
    return LoadedType(structure, dropped, stored.widths if stored else {})


def write_structure(connection: Connection, resource_type: str, loaded: LoadedType) -> None:
    """Notes what a type is now. Always written: of two loads at once, DuckDB then refuses one."""
    connection.execute("DELETE FROM fhirpath_otel.structures WHERE resource_type = $1", [resource_type])
    row = [resource_type, *map(json.dumps, (loaded.structure, loaded.dropped, loaded.widths))]
    connection.execute("INSERT INTO fhirpath_otel.structures VALUES ($1, $2, $3, $4)", row)


def _check_column(connection: Connection, resource_type: str, structure: Structure) -> None:
    """Makes sure that the column is as it is thought to be: INSERT leaves out, in silence, what it does not have."""
    row = connection.execute(
        f"SELECT typeof(NULL::{sql_type(structure)}) = data_type FROM duckdb_columns()"
        " WHERE database_name = current_database() AND schema_name = 'main' AND table_name = $1"
        " AND column_name = 'r'",
        [resource_type],
    ).fetchone()
    if row != (True,):
        raise DatabaseError(
            f"the table {resource_type} was changed by other means than a load; load into a new database"
        )


def insert_statement(resource_type: str, structure: Structure, decimals: Decimals) -> str:
    """INSERT with two parameters, a list of ids and one of texts."""
    literal = json.dumps(structure).replace("'", "''")
    return (
        f"INSERT INTO \"{resource_type}\" SELECT id, raw, from_json({_quoted(decimals)}, '{literal}')"
        " FROM (SELECT unnest($1) AS id, unnest($2) AS raw)"
    )


def _quoted(decimals: Decimals) -> str:
    """The text with its decimals as strings."""
    if decimals.in_lists:
        return _QUOTED_IN_LISTS
    return _QUOTED.format(keys="|".join(decimals.keys)) if decimals.keys else "raw"


def settle_copies(connection: Connection, resource_type: str, last_place: int, inserted: int) -> Counts:
    """Leaves one row an id, after rows were inserted behind `last_place` (a rowid).

    Of rows with the same text the first stays, of others the new one. Raises ConflictError for two new texts.
    """
    twice = connection.execute(
        "CREATE OR REPLACE TEMP TABLE twice AS"
        f' SELECT hash(id) AS h FROM "{resource_type}" GROUP BY h HAVING count(*) > 1'
    ).fetchone()
    if twice == (0,):
        return Counts(loaded=inserted)
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE copies AS"
        " SELECT rowid AS place, id, md5_number(raw) AS content, rowid > $1 AS new"
        f' FROM "{resource_type}" WHERE hash(id) IN (FROM twice)',
        [last_place],
    )
    conflict = connection.execute(
        "SELECT id FROM copies WHERE new GROUP BY id HAVING count(DISTINCT content) > 1 ORDER BY min(place) LIMIT 1"
    ).fetchone()
    if conflict:
        raise ConflictError(resource_type, conflict[0])
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE ids AS"
        " SELECT id, min(place) FILTER (new) AS first, count(*) FILTER (new) AS news,"
        " bool_or(NOT new) AS stored, count(DISTINCT content) = 1 AS same FROM copies GROUP BY id HAVING count(*) > 1"
    )
    connection.execute(
        f'DELETE FROM "{resource_type}" WHERE rowid IN (SELECT place FROM copies JOIN ids USING (id)'
        " WHERE CASE WHEN stored AND same THEN new ELSE place <> first END)"
    )
    row = connection.execute(
        "SELECT count(*) FILTER (stored AND NOT same), count(*) FILTER (stored AND same), sum(news - 1) FROM ids"
    ).fetchone()
    replaced, unchanged, repeated = map(int, row if row and row[2] is not None else (0, 0, 0))
    return Counts(inserted - repeated - replaced - unchanged, replaced, unchanged, repeated)


def last_place(connection: Connection, resource_type: str) -> int:
    """The rowid of the last row, -1 for an empty table."""
    row = connection.execute(f'SELECT coalesce(max(rowid), -1) FROM "{resource_type}"').fetchone()
    return int(row[0]) if row else -1

"""How wide the decimals in the data are, so that a statement can compute with them exactly.

Measured when data is loaded, over what the load brought: a width never shrinks, so the widest ever seen is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fhirpath_otel.databases.duckdb_numbers import Digits
from fhirpath_otel.databases.structure import Structure
from fhirpath_otel.evaluator.model import SYSTEM_TYPES, Model

if TYPE_CHECKING:
    import duckdb

Widths = dict[str, "Digits | None"]
"""Path of JSON keys, joined by dots, to digits before and after the point; None where some are not plain digits."""


def measure(
    connection: duckdb.DuckDBPyConnection,
    resource_type: str,
    structure: dict[str, Structure],
    model: Model,
    last_place: int,
) -> Widths:
    """The widths in the rows behind `last_place` (a rowid)."""
    widths: Widths = {}
    for path in _decimal_paths(structure, resource_type, model):
        row = connection.execute(_query(resource_type, structure, path, last_place)).fetchone()
        whole, fraction, irregular = row or (None, None, 0)
        widths[".".join(path)] = None if irregular else (whole or 1, fraction or 0)
    return widths


def widest(first: Widths, second: Widths) -> Widths:
    """The widths that hold both."""
    both = first | second
    for path in first.keys() & second.keys():
        one, other = first[path], second[path]
        both[path] = None if one is None or other is None else (max(one[0], other[0]), max(one[1], other[1]))
    return both


def _decimal_paths(
    structure: dict[str, Structure], type_name: str, model: Model, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    for key, below in structure.items():
        known = model.json_element(type_name, key)
        kind = "Element" if key.startswith("_") else known[1] if known else ""
        item = below[0] if isinstance(below, list) else below
        if isinstance(item, dict):
            yield from _decimal_paths(item, kind, model, (*path, key))
        elif SYSTEM_TYPES.get(kind) == "Decimal":
            yield *path, key


def _query(resource_type: str, structure: Structure, path: tuple[str, ...], last_place: int) -> str:
    source, item, below = f'(SELECT r FROM "{resource_type}" WHERE rowid > {last_place})', "r", structure
    for key in path:
        assert isinstance(below, dict)
        item, below = f'{item}."{key}"', below[key]
        if isinstance(below, list):
            source, item, below = f"(SELECT unnest({item}) AS v FROM {source})", "v", below[0]
    return (
        "SELECT max(length(ltrim(split_part(n, '.', 1), '-'))), max(length(split_part(n, '.', 2))),"
        rf" count(*) FILTER (NOT regexp_full_match(n, '-?\d+(\.\d+)?')) FROM (SELECT {item} AS n FROM {source})"
    )

"""See where every FHIRPath evaluation spends its time, as OpenTelemetry traces and metrics.

    import fhirpath_otel as fo

    fo.configure()
    with fo.connect("clinic.duckdb") as database:
        database.load("export/")
        for resource_id, value in database.evaluate("Patient.name.where(use = 'official').family"):
            ...

Importing this costs a few milliseconds: databases, the OpenTelemetry SDK and what prints are loaded when they are used.
"""

from __future__ import annotations

import importlib
import os
import re
from typing import TYPE_CHECKING, Any

from fhirpath_otel import errors

if TYPE_CHECKING:
    from fhirpath_otel.configuration import configure, flush, set_detail, shutdown
    from fhirpath_otel.databases.duckdb import DuckDBDatabase as Database
    from fhirpath_otel.doors.wiring import BottleneckSpanProcessor, TailSamplingSpanProcessor
    from fhirpath_otel.evaluator.result import Explanation, Result

    __version__: str

__all__ = [
    "BottleneckSpanProcessor",
    "Database",
    "Explanation",
    "Result",
    "TailSamplingSpanProcessor",
    "__version__",
    "configure",
    "connect",
    "errors",
    "flush",
    "set_detail",
    "shutdown",
]

_LAZY = {
    "BottleneckSpanProcessor": ("fhirpath_otel.doors.wiring", "BottleneckSpanProcessor"),
    "TailSamplingSpanProcessor": ("fhirpath_otel.doors.wiring", "TailSamplingSpanProcessor"),
    "Database": ("fhirpath_otel.databases.duckdb", "DuckDBDatabase"),
    "Explanation": ("fhirpath_otel.evaluator.result", "Explanation"),
    "Result": ("fhirpath_otel.evaluator.result", "Result"),
    "configure": ("fhirpath_otel.configuration", "configure"),
    "flush": ("fhirpath_otel.configuration", "flush"),
    "shutdown": ("fhirpath_otel.configuration", "shutdown"),
    "set_detail": ("fhirpath_otel.configuration", "set_detail"),
}

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)


def connect(url: str | os.PathLike[str], *, read_only: bool = False) -> Database:
    """Open a database: a path or `duckdb://` and a path for a DuckDB file (made if need be), `:memory:` for none.

    With `read_only` the file must be there, and other processes may read it too.
    Raises UsageError for a URL that leads nowhere, DatabaseError where the database cannot be opened.
    """
    path = _duckdb_path(os.fspath(url))

    from fhirpath_otel.configuration import recorder
    from fhirpath_otel.databases.duckdb import DuckDBDatabase

    return DuckDBDatabase(path, recorder(), read_only=read_only)


def _duckdb_path(url: str) -> str:
    """The path of a DuckDB file. Messages name the scheme only: the rest of a URL can hold a password."""
    found = _SCHEME.fullmatch(url)
    scheme, path = (found[1].lower(), found[2]) if found else ("duckdb", url)
    if scheme in {"postgresql", "postgres"}:
        raise errors.UsageError(
            "this version evaluates on DuckDB only; give the path of a DuckDB file, or :memory:"
        )
    if scheme != "duckdb":
        raise errors.UsageError(f"unknown database {scheme}://…; give the path of a DuckDB file, or :memory:")
    if not path:
        raise errors.UsageError("no database given; give the path of a DuckDB file, or :memory:")
    return path


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("fhirpath-otel")
    elif name in _LAZY:
        module, attribute = _LAZY[name]
        value = getattr(importlib.import_module(module), attribute)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

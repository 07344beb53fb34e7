"""What `import fhirpath_otel` costs, and what it gives."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fhirpath_otel
from fhirpath_otel import errors


def modules_after(statement):
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    return {name.partition(".")[0] for name in output.split()}


@pytest.mark.parametrize(
    "heavy",
    [
        "click",
        "duckdb",
        "fhirpathpy",
        "jinja2",
        "msgspec",
        "numpy",
        "opentelemetry",
        "pandas",
        "psycopg",
        "pyarrow",
        "rich",
    ],
)
def test_importing_the_package_loads_nothing_heavy(heavy):
    assert heavy not in modules_after("import fhirpath_otel")


def test_the_command_line_shows_its_help_without_databases_and_telemetry():
    loaded = modules_after("from fhirpath_otel.__main__ import main; main(['evaluate', '--help'])")

    assert not loaded & {"duckdb", "fhirpathpy", "numpy", "opentelemetry", "pandas", "pyarrow", "rich"}


def test_everything_public_is_there():
    assert {name for name in fhirpath_otel.__all__ if getattr(fhirpath_otel, name) is None} == set()
    assert dir(fhirpath_otel) == sorted(fhirpath_otel.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        _ = fhirpath_otel.nope


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("clinic.duckdb", "clinic.duckdb"),
        (":memory:", ":memory:"),
        ("duckdb:///srv/clinic.duckdb", "/srv/clinic.duckdb"),
        ("duckdb://clinic.duckdb", "clinic.duckdb"),
        ("DUCKDB://:memory:", ":memory:"),
        (r"C:\data\clinic.duckdb", r"C:\data\clinic.duckdb"),
    ],
)
def test_a_duckdb_file_is_named_by_its_path_or_url(url, path):
    assert fhirpath_otel._duckdb_path(url) == path


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://ada:s3cret@host/db", "this version evaluates on DuckDB only"),
        ("postgres://ada:s3cret@host/db", "this version evaluates on DuckDB only"),
        ("mysql://ada:s3cret@host/db", "unknown database mysql://…"),
        ("duckdb://", "no database given"),
        ("", "no database given"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused_without_its_password(url, message):
    with pytest.raises(errors.UsageError) as refused:
        fhirpath_otel.connect(url)

    assert message in str(refused.value)
    assert "s3cret" not in str(refused.value)
    assert "ada" not in str(refused.value)

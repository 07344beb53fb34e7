"""`fhirpath-otel load`: FHIR resources from files into a database."""

from __future__ import annotations

import click


@click.command(
    epilog="""\b
Examples:
  fhirpath-otel load clinic.duckdb export/
  fhirpath-otel load clinic.duckdb Patient.ndjson Observation.ndjson.gz bundle.json
  fhirpath-otel load clinic.duckdb export/ --on-error skip"""
)
@click.argument("database")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="What a broken line or file does: stop the load, or be left out and listed.",
)
def load(database: str, paths: tuple[str, ...], on_error: str) -> None:
    """Load FHIR R4 resources from PATHs into DATABASE, a DuckDB file that is made if need be.

    A PATH is an NDJSON file, a Bundle or a single resource (JSON), each also gzipped, or a folder of these. All of it is
    loaded or nothing. A resource that is there already, by type and id, is replaced.
    """
    raise NotImplementedError

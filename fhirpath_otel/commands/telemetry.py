"""Telemetry of a command: what the `OTEL_*` variables ask for, and files on this machine."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def set_up_telemetry() -> None:
    """Set up exporting, and local trace files where the extra is installed, so that a trace id leads somewhere."""
    import fhirpath_otel as fo

    fo.configure(local_traces=True if _installed("opentelemetry-exporter-otlp-json-file") else None)


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True

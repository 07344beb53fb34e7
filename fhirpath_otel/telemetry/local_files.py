"""Where this machine keeps its trace files, and how to read them again.

A file holds OTLP-JSON, one batch of spans a line (https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/),
so a process that dies leaves at most its last line broken. `fhirpath_otel.local_traces` writes them.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fhirpath_otel.settings import Settings

SUFFIX = ".otlp.jsonl"

_STATUS_ERROR = (2, "STATUS_CODE_ERROR")


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """One finished span of a file. Ids are lower-case hexadecimal; times are nanoseconds since 1970 (UTC)."""

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    status_error: bool


def traces_directory(settings: Settings, environ: Mapping[str, str] = os.environ) -> Path:
    """The directory of the trace files: the setting, or a place in the user's state directory (XDG)."""
    if settings.traces_directory:
        return Path(settings.traces_directory).expanduser()
    state = environ.get("XDG_STATE_HOME", "")
    # The XDG specification has relative paths ignored.
    base = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return base / "fhirpath-otel" / "traces"


def read_traces(path: str | os.PathLike[str]) -> list[SpanRecord]:
    """The spans of a trace file, or of all trace files of a directory, in the order they were written.

    A line that is broken, such as the last one of a process that was killed, is skipped.
    Raises OSError where the path cannot be read.
    """
    place = Path(path)
    files = sorted(place.glob("*" + SUFFIX)) if place.is_dir() else [place]
    return [span for file in files for line in file.read_bytes().splitlines() for span in _spans(line)]


def _spans(line: bytes) -> list[SpanRecord]:
    try:
        batch = json.loads(line)
        return [_record(span) for span in _raw_spans(batch)]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []


def _raw_spans(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in batch.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            yield from scope.get("spans", ())


def _record(span: dict[str, Any]) -> SpanRecord:
    return SpanRecord(
        trace_id=span["traceId"],
        span_id=span["spanId"],
        parent_span_id=span.get("parentSpanId") or None,
        name=span["name"],
        start_ns=int(span["startTimeUnixNano"]),
        end_ns=int(span["endTimeUnixNano"]),
        attributes={item["key"]: _value(item["value"]) for item in span.get("attributes", ())},
        status_error=(span.get("status") or {}).get("code") in _STATUS_ERROR,
    )


def _value(value: dict[str, Any]) -> Any:
    """The Python value of an OTLP AnyValue; 64-bit integers are texts in JSON."""
    [(kind, content)] = value.items()
    if kind == "intValue":
        return int(content)
    if kind == "doubleValue":
        return float(content)
    if kind == "arrayValue":
        return [_value(item) for item in content.get("values", ())]
    return content

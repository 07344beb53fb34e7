"""`STRIP_FOREIGN=on`: what other instrumentations' spans lose before they leave, because it can carry data.

Deny by default: of attributes those of `semconv.HARMLESS_ATTRIBUTES` stay. Names of spans stay, as OpenTelemetry has
them be of few values; so do ids, times and status codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import Event
from opentelemetry.trace import Link, Status

from fhirpath_otel import semconv
from fhirpath_otel.doors.span_copies import SpanCopy

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


def stripped(span: ReadableSpan) -> ReadableSpan:
    """A copy of the span without what can carry data."""
    events = [
        Event(
            semconv.EXCEPTION_EVENT if event.name == semconv.EXCEPTION_EVENT else semconv.OTHER,
            _harmless(event.attributes),
            event.timestamp,
        )
        for event in span.events
    ]
    return SpanCopy(
        span,
        attributes=_harmless(span.attributes),
        events=events,
        links=[Link(link.context, _harmless(link.attributes)) for link in span.links],
        status=Status(span.status.status_code),
    )


def _harmless(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (attributes or {}).items() if name in semconv.HARMLESS_ATTRIBUTES}

"""Ended spans cannot be changed: what is to be added or taken away is on a copy, and the original stays as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from fhirpath_otel.telemetry.span_evaluations import key_of, local_parent
from fhirpath_otel.telemetry.tracestate import threshold_in, with_threshold

if TYPE_CHECKING:
    from fhirpath_otel.sampling.group_sampler import Mark


class SpanCopy(ReadableSpan):
    """A span like another one; `changes` are arguments of `ReadableSpan` that replace what the original has."""

    def __init__(self, original: ReadableSpan, **changes: Any) -> None:
        self._original = original
        same = {
            "name": original.name,
            "context": original.context,
            "parent": original.parent,
            "resource": original.resource,
            "attributes": original.attributes,
            "events": original.events,
            "links": original.links,
            "kind": original.kind,
            "status": original.status,
            "start_time": original.start_time,
            "end_time": original.end_time,
            "instrumentation_scope": original.instrumentation_scope,
        }
        super().__init__(**{**same, **changes})

    # What the SDK's limits cost the original is known only to its own containers.

    @property
    def dropped_attributes(self) -> int:
        """How many attributes the limits cost."""
        return self._original.dropped_attributes

    @property
    def dropped_events(self) -> int:
        """How many events the limits cost."""
        return self._original.dropped_events

    @property
    def dropped_links(self) -> int:
        """How many links the limits cost."""
        return self._original.dropped_links


def with_attributes(span: ReadableSpan, attributes: Mapping[str, Any]) -> ReadableSpan:
    """The span with these attributes besides its own."""
    return SpanCopy(span, attributes={**(span.attributes or {}), **attributes})


def marked(spans: Sequence[ReadableSpan], mark: Mark | None) -> list[ReadableSpan]:
    """Kept spans with what they are told: the root with its attributes, all with the threshold in their tracestate."""
    if mark is None:
        return list(spans)
    return [_marked(span, mark) for span in spans]


def _marked(span: ReadableSpan, mark: Mark) -> ReadableSpan:
    context: SpanContext = span.context
    changes: dict[str, Any] = {}
    if mark.threshold is not None:
        state = with_threshold(
            context.trace_state, max(mark.threshold, threshold_in(context.trace_state) or 0)
        )
        changes["context"] = SpanContext(
            context.trace_id, context.span_id, context.is_remote, context.trace_flags, state
        )
    if key_of(context) == mark.root or (mark.root is None and local_parent(span.parent) is None):
        changes["attributes"] = {**(span.attributes or {}), **mark.attributes}
    return SpanCopy(span, **changes) if changes else span

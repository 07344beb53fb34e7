"""The spans of one trace as a tree, each with its duration and a bar that shows when it ran."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

from fhirpath_otel.reports.caret import printable
from fhirpath_otel.reports.durations import duration
from fhirpath_otel.telemetry.local_files import SpanRecord

BAR_WIDTH = 32
NAME_WIDTH = 48


@dataclass(frozen=True, slots=True)
class Branch:
    """One line of the tree: `lead` is what is drawn before the span's name."""

    lead: str
    span: SpanRecord


def trace_tree(spans: Iterable[SpanRecord], trace_id: str) -> list[Text]:
    """One line a span of this trace, parents before children, in the order they began.

    A bar's place and length are its span's share of the whole trace. Gives no line where no span has this trace id.
    """
    branches = list(_branches([span for span in spans if span.trace_id == trace_id]))
    if not branches:
        return []
    begin = min(branch.span.start_ns for branch in branches)
    extent = max(branch.span.end_ns for branch in branches) - begin
    names = [printable(f"{branch.lead}{branch.span.name}") for branch in branches]
    width = min(max(map(len, names)), NAME_WIDTH)
    return [
        _line(name, width, branch.span, begin, extent) for name, branch in zip(names, branches, strict=True)
    ]


def _branches(spans: Sequence[SpanRecord]) -> Iterator[Branch]:
    """The spans in the order of the tree; one whose parent is elsewhere (or lost) begins a tree of its own."""
    known = {span.span_id for span in spans}
    children: dict[str | None, list[SpanRecord]] = {}
    for span in sorted(spans, key=lambda span: span.start_ns):
        parent = span.parent_span_id if span.parent_span_id in known else None
        children.setdefault(parent, []).append(span)

    def below(parent: str | None, lead: str) -> Iterator[Branch]:
        siblings = children.get(parent, [])
        for span in siblings:
            last = span is siblings[-1]
            yield Branch("" if parent is None else lead + ("└─ " if last else "├─ "), span)
            yield from below(span.span_id, "" if parent is None else lead + ("   " if last else "│  "))

    return below(None, "")


def _line(name: str, width: int, span: SpanRecord, begin: int, extent: int) -> Text:
    cut = name if len(name) <= width else name[: width - 1] + "…"
    took = duration((span.end_ns - span.start_ns) / 1e9)
    first = (span.start_ns - begin) * BAR_WIDTH // max(extent, 1)
    length = max(1, round((span.end_ns - span.start_ns) * BAR_WIDTH / max(extent, 1)))
    first = min(first, BAR_WIDTH - 1)
    bar = " " * first + "█" * min(length, BAR_WIDTH - first)
    return Text.assemble(
        f"{cut:<{width}} ",
        (f"{took:>8} ", "bold"),
        (bar, "red" if span.status_error else "cyan"),
    )

"""Spans to lines."""

from __future__ import annotations

from fhirpath_otel.reports.trace_tree import trace_tree
from fhirpath_otel.telemetry.local_files import SpanRecord


def span(span_id, parent, name, start, end, *, trace_id="t", error=False):
    return SpanRecord(trace_id, span_id, parent, name, start * 1_000_000, end * 1_000_000, {}, error)


SPANS = [
    span("1", None, "fhirpath evaluate Patient", 0, 32),
    span("3", "1", "SELECT Patient", 8, 32),
    span("2", "1", "fhirpath parse", 0, 8),
    span("4", "3", "below", 16, 24),
    span("9", None, "another trace", 0, 99, trace_id="u"),
]


def test_children_stand_under_their_parents_in_the_order_they_began():
    lines = [line.plain.rstrip() for line in trace_tree(SPANS, "t")]

    assert lines == [
        "fhirpath evaluate Patient  32.0 ms ████████████████████████████████",
        "├─ fhirpath parse          8.00 ms ████████",
        "└─ SELECT Patient          24.0 ms         ████████████████████████",
        "   └─ below                8.00 ms                 ████████",
    ]


def test_a_span_whose_parent_is_elsewhere_begins_a_tree():
    lines = [
        line.plain for line in trace_tree([span("2", "1", "one", 0, 1), span("3", "1", "two", 1, 2)], "t")
    ]

    assert [line.split()[0] for line in lines] == ["one", "two"]


def test_an_unknown_trace_has_no_lines():
    assert trace_tree(SPANS, "v") == []


def test_a_span_of_no_length_still_has_a_bar_within_the_width():
    lines = [
        line.plain for line in trace_tree([span("1", None, "a", 0, 32), span("2", "1", "b", 32, 32)], "t")
    ]

    assert lines[1].endswith(" █")
    assert len(lines[1]) == len(lines[0])


def test_a_long_name_is_cut_and_a_control_character_shown():
    [line] = trace_tree([span("1", None, "\x1b[31m" + "x" * 80, 0, 1)], "t")

    assert line.plain.startswith("�[31mxxx")
    assert "x…  1.00 ms" in line.plain


def test_a_failed_span_is_red():
    [line] = trace_tree([span("1", None, "a", 0, 1, error=True)], "t")

    assert "red" in {style.style for style in line.spans}

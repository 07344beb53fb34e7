"""Rules over anybody's spans, where nothing is sampled."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from fhirpath_otel.analysis.span_analyser import SpanAnalyser
from fhirpath_otel.doors import bottleneck_processor
from fhirpath_otel.doors.bottleneck_processor import BottleneckProcessor

MS = 1_000_000


class Bottlenecks:
    """A provider with the processor, and what came out of it."""

    def __init__(self, make_doors, analyse=None):
        doors = make_doors("processor")
        self.kept, self.counts = doors.kept, doors.counts
        self.processor = BottleneckProcessor(
            SimpleSpanProcessor(self.kept), analyse or SpanAnalyser(), self.counts
        )
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)

    def span(self, name, parent=None, lasts=10, scope="host", **attributes):
        attributes = {key.replace("__", "."): value for key, value in attributes.items()}
        context = None if parent is None else trace.set_span_in_context(parent)
        span = self.provider.get_tracer(scope).start_span(name, context, start_time=1, attributes=attributes)
        return span, lambda: span.end(1 + lasts * MS)

    def told(self, name):
        return [dict(span.attributes or {}) for span in self.kept.spans if span.name == name]


@pytest.fixture
def bottlenecks(make_doors):
    return Bottlenecks(make_doors)


def loop(bottlenecks, parent, times, statement=lambda number: f"SELECT name FROM p WHERE id = {number}"):
    for number in range(times):
        _, end = bottlenecks.span("SELECT", parent, scope="driver", db__query__text=statement(number))
        end()


def test_statements_in_a_loop_stand_on_the_root_of_a_request(bottlenecks):
    root, end = bottlenecks.span("GET /", lasts=200)
    loop(bottlenecks, root, 11)
    end()
    [told] = bottlenecks.told("GET /")
    assert told["fhirpath.bottleneck.rules"] == ("n-plus-one",)
    assert told["fhirpath.bottleneck.severity"] == "warning"
    assert bottlenecks.counts.seen == {("finding", "n-plus-one"): 1}


def test_nine_statements_or_different_ones_are_no_loop(bottlenecks):
    root, end = bottlenecks.span("GET /", lasts=200)
    loop(bottlenecks, root, 9)
    loop(bottlenecks, root, 9, lambda number: f"SELECT column_{'abcdefghi'[number]} FROM p")
    end()
    assert not bottlenecks.counts.seen


def test_two_requests_of_one_trace_are_not_taken_together(bottlenecks):
    remote = trace.NonRecordingSpan(trace.SpanContext(7, 8, True, trace.TraceFlags(1)))
    first, end_first = bottlenecks.span("GET /", remote)
    second, end_second = bottlenecks.span("GET /", remote)
    for _ in range(6):
        loop(bottlenecks, first, 1)
        loop(bottlenecks, second, 1)
    end_first()
    end_second()
    assert not bottlenecks.counts.seen
    assert not bottlenecks.processor._traces


def test_an_evaluation_of_another_engine_is_judged_by_our_names(bottlenecks):
    request, end_request = bottlenecks.span("GET /", lasts=100)
    for _ in range(2):  # The first of an expression may parse as long as it likes.
        evaluation, end = bottlenecks.span(
            "evaluate", request, lasts=20, fhirpath__engine__name="other", fhirpath__expression__hash="ab" * 8
        )
        _, end_stage = bottlenecks.span("parse", evaluation, lasts=15, fhirpath__stage="parse")
        end_stage()
        end()
    end_request()
    first, second = bottlenecks.told("evaluate")
    assert "fhirpath.bottleneck.rule" not in first
    assert second["fhirpath.bottleneck.rule"] == "parse-dominates"
    assert "fhirpath.bottleneck.rule" not in bottlenecks.told("GET /")[0]


def test_a_fallback_into_memory_is_told_by_attributes(bottlenecks):
    _, end = bottlenecks.span(
        "evaluate",
        fhirpath__expression__hash="ab" * 8,
        fhirpath__fallback__position=3,
        fhirpath__fallback__length=4,
        **{"fhirpath.stage.in_memory.duration": 0.009},
    )
    end()
    assert bottlenecks.told("evaluate")[0]["fhirpath.bottleneck.rule"] == "in-memory-fallback"


def test_every_span_goes_out_at_once_and_unchanged_without_findings(bottlenecks):
    root, end = bottlenecks.span("GET /")
    _, end_child = bottlenecks.span("SELECT", root, db__system__name="postgresql")
    end_child()
    assert [type(span).__name__ for span in bottlenecks.kept.spans] == ["ReadableSpan"]
    end()
    assert [type(span).__name__ for span in bottlenecks.kept.spans] == ["ReadableSpan"] * 2
    assert not bottlenecks.processor._traces


def test_what_the_recorder_judged_is_not_judged_again(make_doors):
    asked = []
    bottlenecks = Bottlenecks(make_doors, lambda spans: asked.append([span.name for span in spans]) or ())
    root, end = bottlenecks.span("GET /")
    ours, end_ours = bottlenecks.span(
        "evaluate", root, fhirpath__expression__hash="ab" * 8, fhirpath__sampling__reason="slow"
    )
    _, end_stage = bottlenecks.span("sql", ours, fhirpath__stage="sql")
    for finish in (end_stage, end_ours, end):
        finish()
    assert asked == [["GET /"]]


def test_rules_that_fail_cost_findings_only(make_doors):
    bottlenecks = Bottlenecks(make_doors, lambda _: 1 / 0)
    _, end = bottlenecks.span("GET /")
    end()
    assert len(bottlenecks.kept.spans) == 1
    assert bottlenecks.counts.seen == {("finding", "internal_error"): 1}


def test_what_is_remembered_is_bounded_and_counted(bottlenecks, monkeypatch):
    monkeypatch.setattr(bottleneck_processor, "MOST_TRACES", 3)
    monkeypatch.setattr(bottleneck_processor, "MOST_SPANS", 4)
    for _ in range(5):
        root, _ = bottlenecks.span("never ends")
        loop(bottlenecks, root, 6)
    assert [len(trace) for trace in bottlenecks.processor._traces.values()] == [4, 4, 4]
    assert bottlenecks.counts.seen == {("finding", "too_many_traces"): 2}
    assert len(bottlenecks.kept.spans) == 30


def test_without_a_processor_to_wrap_it_counts_only(make_doors):
    bottlenecks = Bottlenecks(make_doors)
    alone = BottleneckProcessor(None, SpanAnalyser(), bottlenecks.counts)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(alone)
    bottlenecks.provider = provider
    root, end = bottlenecks.span("GET /")
    loop(bottlenecks, root, 12)
    end()
    assert bottlenecks.counts.seen == {("finding", "n-plus-one"): 1}
    assert alone.force_flush()
    alone.shutdown()

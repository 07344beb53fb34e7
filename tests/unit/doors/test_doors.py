"""What both doors let through: whose spans, as what, and what is counted."""

from __future__ import annotations

import itertools
import logging
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import baggage, trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, SamplingResult
from opentelemetry.sdk.trace.sampling import Decision as SdkDecision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from fhirpath_otel.doors.span_copies import marked
from fhirpath_otel.doors.tail_exporter import TailSamplingExporter
from fhirpath_otel.sampling.group_sampler import Mark
from fhirpath_otel.sampling.policies import Reasons, TailSampler
from fhirpath_otel.settings import Settings
from fhirpath_otel.telemetry.evaluation import Decision
from fhirpath_otel.telemetry.finding import Finding
from fhirpath_otel.telemetry.tracestate import RANGE, threshold_in

DROP = Decision(False, "not_selected")
KEEP = Decision(True, "slow")
HASH = {"fhirpath.expression.hash": "0123456789abcdef", "fhirpath.engine.name": "fhirpathpy"}
FINDING = Finding("n-plus-one", "warning", "sql", 0, 1, {}, 1.0, "Evaluate once.")


def remote(sampled=True, state=()):
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else 0)
    return trace.set_span_in_context(
        NonRecordingSpan(SpanContext((0xABC << 60) - 1, 0x77, True, flags, TraceState(list(state))))
    )


def evaluate(doors, context=None, **attributes):
    """An evaluation of an instrumented engine: a root with two stages; the root is the last to end."""
    tracer = doors.tracer()
    root = tracer.start_span("evaluate", context, attributes={**HASH, **attributes})
    inside = trace.set_span_in_context(root, context)
    for stage in ("parse", "sql"):
        tracer.start_span(stage, inside, attributes={"fhirpath.stage": stage}).end()
    root.end()
    return root


def test_a_kept_evaluation_comes_out_whole_with_its_reason_and_weight(doors):
    evaluate(doors)
    assert doors.names() == ["parse", "sql", "evaluate"]
    told = doors.span("evaluate").attributes
    assert told["fhirpath.sampling.reason"] == "slow"
    assert told["fhirpath.sampling.adjusted_count"] == 3.0
    assert told["fhirpath.expression.hash"] == HASH["fhirpath.expression.hash"]
    assert doors.counts.seen == {("kept", "slow"): 1}


@pytest.mark.parametrize(
    ("decision", "counted"),
    [(DROP, ("dropped", "not_selected")), (Decision(False, "slow"), ("suppressed", "slow"))],
)
def test_an_evaluation_that_is_not_kept_does_not_come_out(doors, decision, counted):
    doors.decide = lambda _: decision
    evaluate(doors)
    assert doors.names() == []
    assert doors.counts.seen == {counted: 1}


def test_the_policies_see_an_evaluation(doors):
    evaluate(doors, remote())
    [asked] = doors.asked
    assert asked.template.hash == HASH["fhirpath.expression.hash"]
    assert asked.caller.span_id == 0x77
    assert [stage for stage, _, _ in asked.stages] == ["parse", "sql"]
    assert asked.duration_ns > 0
    assert asked.error_type is None


def test_an_error_is_told_by_status_or_type(doors):
    tracer = doors.tracer()
    tracer.start_span("a", attributes={**HASH, "error.type": "Oops: CANARY"}).end()
    with pytest.raises(RuntimeError), tracer.start_as_current_span("b", attributes=HASH):
        raise RuntimeError("CANARY")
    tracer.start_span("c", attributes={**HASH, "error.type": "syntax"}).end()
    assert [asked.error_type for asked in doors.asked] == ["_OTHER", "_OTHER", "syntax"]


def test_findings_stand_on_the_root_and_are_counted(make_doors):
    for kind in ("processor", "exporter"):
        doors = make_doors(kind, analyse=lambda spans, _: (FINDING,) if len(spans) == 3 else ())
        evaluate(doors)
        assert doors.asked[0].findings == (FINDING,)
        assert doors.span("evaluate").attributes["fhirpath.bottleneck.rule"] == "n-plus-one"
        assert doors.counts.seen["finding", "n-plus-one"] == 1


def test_foreign_spans_pass_at_once_and_are_the_very_same(make_doors):
    for kind in ("processor", "exporter"):
        doors = make_doors(kind, lambda _: DROP)
        with doors.tracer("host").start_as_current_span("request") as request:
            with doors.tracer("host").start_as_current_span("inner", kind=SpanKind.CLIENT) as inner:
                inner.add_event("read", {"n": 1})
            assert doors.names() == ["inner"]
            evaluate(doors)
        assert doors.names() == ["inner", "request"]
        assert doors.span("inner").parent.span_id == request.get_span_context().span_id


class Last(SpanProcessor):
    """Keeps what the provider hands to its processors."""

    def __init__(self):
        self.given = []

    def on_end(self, span):
        self.given.append(span)


def test_at_the_processor_a_foreign_span_is_the_same_object(make_doors):
    doors, last = make_doors("processor"), Last()
    doors.provider.add_span_processor(last)
    with doors.tracer("host").start_as_current_span("request"):
        pass
    assert doors.kept.spans[0] is last.given[0]


def test_at_the_exporter_foreign_spans_are_the_same_objects_and_bytes(make_doors):
    doors, last = make_doors("exporter"), Last()
    plain = TracerProvider(shutdown_on_exit=False)
    plain.add_span_processor(last)
    tracer = plain.get_tracer("host", "1", "https://opentelemetry.io/schemas/1.33.0", {"a": "b"})
    with tracer.start_as_current_span("request", context=remote(state=[("a", "b")])) as span:
        span.set_status(Status(StatusCode.ERROR, "message"))
        span.add_event("e", {"x": "y"})
        with tracer.start_as_current_span("inner", attributes={"db.statement": "SELECT 1"}):
            pass
    before = encode_spans(last.given).SerializeToString()
    doors.door.export(last.given)
    assert [sent is given for sent, given in zip(doors.kept.spans, last.given, strict=True)] == [True, True]
    assert encode_spans(doors.kept.spans).SerializeToString() == before


def test_a_copy_encodes_as_its_original_but_for_what_is_told(make_doors):
    doors = make_doors("exporter")
    evaluate(doors, remote(state=[("a", "b")]))
    copies = {span.name: span for span in doors.kept.spans}
    root = copies["evaluate"]
    assert type(root).__name__ == "SpanCopy"
    told = encode_spans([root]).resource_spans[0].scope_spans[0].spans[0]
    original = encode_spans([root._original]).resource_spans[0].scope_spans[0].spans[0]
    own = {item.key for item in original.attributes}
    kept = [item for item in told.attributes if item.key in own]
    del told.attributes[:]
    told.attributes.extend(kept)
    assert told.SerializeToString() == original.SerializeToString()


def test_what_the_recorder_has_decided_passes_with_its_children(doors):
    doors.decide = lambda _: DROP
    evaluate(doors, **{"fhirpath.sampling.reason": "error"})
    assert doors.names() == ["parse", "sql", "evaluate"]
    assert type(doors.span("evaluate")).__name__ == "ReadableSpan"
    assert not doors.asked
    assert not doors.counts.seen


def test_the_recorder_s_spans_keep_what_is_above_them(doors):
    doors.decide = lambda _: DROP
    tracer = doors.tracer()
    command = tracer.start_span("command")
    inside = trace.set_span_in_context(command)
    evaluate(doors, inside, **{"fhirpath.sampling.reason": "error"})
    command.end()
    assert doors.names()[-1] == "command"
    assert doors.span("command").attributes["fhirpath.sampling.reason"] == "error"
    assert "fhirpath.sampling.adjusted_count" not in doors.span("command").attributes


def test_below_a_remote_parent_that_is_not_sampled_nothing_comes_out(doors):
    evaluate(doors, remote(sampled=False))
    assert doors.names() == []
    assert not doors.asked


@pytest.mark.parametrize("kind", ["processor", "exporter"])
@pytest.mark.parametrize(
    ("state", "threshold", "keeps_all", "expected"),
    [
        ([("a", "b")], 0, True, {"a": "b"}),
        ([("a", "b"), ("ot", "th:8")], 0, False, {"a": "b", "ot": "th:8"}),
        ([("ot", "th:8;rv:ffffffffffffff")], 12 << 52, False, {"ot": "th:c;rv:ffffffffffffff"}),
        ([("ot", "th:8")], None, True, {"ot": "th:8"}),
        (None, 0, True, {"ot": "th:0"}),
        (None, 12 << 52, True, {"ot": "th:c"}),
        (None, 0, False, {}),
        (None, None, True, {}),
    ],
)
def test_the_threshold_is_told_where_it_is_known(make_doors, kind, state, threshold, keeps_all, expected):
    doors = make_doors(
        kind, lambda _: Decision(True, "baseline", 1.0, threshold), keeps_all=lambda _: keeps_all
    )
    evaluate(doors, None if state is None else remote(state=state))
    assert [dict(span.context.trace_state) for span in doors.kept.spans] == [expected] * 3


def test_a_baseline_decides_by_the_trace_id_that_is_there(doors):
    root = evaluate(doors)
    assert doors.asked[0].randomness == root.get_span_context().trace_id % RANGE


@pytest.mark.parametrize(("kind", "forced"), [("processor", True), ("exporter", False)])
def test_baggage_forces_where_starts_are_seen(make_doors, kind, forced):
    doors = make_doors(kind)
    evaluate(doors, baggage.set_baggage("fhirpath.debug", "true"))
    assert (doors.asked[0].context is not None) == forced


@pytest.mark.parametrize("kind", ["processor", "exporter"])
def test_all_decides_about_whole_requests(make_doors, kind):
    doors = make_doors(kind, lambda _: DROP, whose="all")
    for _ in range(2):
        with doors.tracer("host").start_as_current_span("GET /", context=remote()):
            with doors.tracer("driver").start_as_current_span("SELECT"):
                pass
            evaluate(doors)
        doors.decide = lambda _: Decision(True, "first_sighting", 2.0)
    assert sorted(doors.names()) == ["GET /", "SELECT", "evaluate", "parse", "sql"]
    assert doors.span("GET /").attributes["fhirpath.sampling.adjusted_count"] == 2.0
    assert "fhirpath.sampling.reason" not in doors.span("evaluate").attributes
    first, second = doors.asked
    assert first.template == second.template
    assert first.template.hash != HASH["fhirpath.expression.hash"]


@pytest.mark.parametrize("kind", ["processor", "exporter"])
def test_all_keeps_a_request_with_an_evaluation_that_the_recorder_keeps(make_doors, kind):
    doors = make_doors(kind, lambda _: DROP, whose="all")
    host = doors.tracer("host")
    with host.start_as_current_span("GET /"), host.start_as_current_span("handler"):
        evaluate(doors, **{"fhirpath.sampling.reason": "error"})
    assert doors.names() == ["parse", "sql", "evaluate", "handler", "GET /"]
    assert doors.span("GET /").attributes["fhirpath.sampling.reason"] == "error"


@pytest.mark.parametrize("kind", ["processor", "exporter"])
def test_an_error_inside_of_a_request_counts_as_its_own(make_doors, kind):
    doors = make_doors(kind, whose="all")
    with doors.tracer("host").start_as_current_span("GET /"):
        evaluate(doors, **{"error.type": "syntax"})
    assert doors.asked[0].error_type == "syntax"


def test_a_sampler_that_fails_costs_spans_that_are_counted(make_doors):
    def fail(*_):
        raise RuntimeError("CANARY")

    for kind in ("processor", "exporter"):
        doors = make_doors(kind, fail)
        evaluate(doors)
        assert doors.names() == []
        assert doors.counts.seen == {("span", "internal_error"): 3}
        doors = make_doors(kind, analyse=fail)
        evaluate(doors)
        assert len(doors.names()) == 3
        assert doors.counts.seen["finding", "internal_error"] == 1


def test_shutdown_decides_what_is_complete_and_counts_the_rest(make_doors):
    doors = make_doors("processor")
    tracer = doors.tracer()
    first = tracer.start_span("ended", attributes=HASH)
    tracer.start_span("open child", trace.set_span_in_context(first))
    first.end()
    second = tracer.start_span("never ends", attributes=HASH)
    tracer.start_span("child", trace.set_span_in_context(second)).end()
    doors.door.shutdown()
    doors.door.shutdown()
    assert doors.names() == ["ended"]
    assert doors.counts.seen == {("kept", "slow"): 1, ("span", "undecided"): 1}
    assert doors.kept.closed == 1


def test_shutdown_of_the_exporter_decides_what_waits_for_its_parent(make_doors):
    doors = make_doors("exporter")
    with doors.tracer("host").start_as_current_span("never ends", end_on_exit=False):
        doors.tracer().start_span("unmarked").end()
    assert doors.names() == []
    doors.door.shutdown()
    doors.door.shutdown()
    assert doors.names() == ["unmarked"]
    assert doors.kept.closed == 1


@pytest.mark.parametrize("result", [SpanExportResult.FAILURE, None, "raises"])
def test_what_was_not_exported_is_counted(make_doors, caplog, result):
    doors = make_doors("exporter")
    doors.kept.result = result
    if result == "raises":
        doors.kept.export = lambda _: 1 / 0
    with caplog.at_level(logging.DEBUG):
        evaluate(doors)
    assert doors.counts.seen == {("kept", "slow"): 1, ("span", "export_failed"): 3}
    assert not caplog.records


def test_without_an_exporter_everything_is_counted_as_not_exported(make_doors):
    doors = make_doors("exporter")
    doors.door._wrapped = None
    doors.tracer("host").start_span("request").end()
    doors.door.shutdown()
    assert doors.counts.seen == {("span", "export_failed"): 1}
    assert doors.door.force_flush()


def test_what_the_sdk_does_not_sample_is_not_judged(make_doors):
    for kind in ("processor", "exporter"):
        doors = make_doors(kind, sampler=ParentBased(ALWAYS_OFF))
        evaluate(doors)
        assert doors.names() == []
        assert not doors.asked


def without_escaped(attributes):
    return {name: value for name, value in attributes.items() if name != "exception.escaped"}


class SeededIds(RandomIdGenerator):
    """The SDK's ids, the same each time."""

    def __init__(self):
        self.source = random.Random(11)  # noqa: S311

    def generate_trace_id(self):
        return self.source.getrandbits(128)


@pytest.mark.parametrize("kind", ["processor", "exporter"])
@pytest.mark.parametrize("rate", [1e9, 300.0])
def test_weights_estimate_all_evaluations_also_where_some_are_suppressed(make_doors, kind, rate):
    turn = itertools.count()
    settings = Settings(baseline_rate=0.2, max_expressions=0)
    sampler = TailSampler(
        Reasons(settings, lambda: pytest.fail("the id decides")).policies, rate, lambda: next(turn) / 1000
    )
    doors = make_doors(kind, sampler, keeps_all=lambda _: True)
    doors.provider.id_generator = SeededIds()
    total = 4_000
    tracer = doors.tracer()
    for number in range(total):
        error = {"error.type": "syntax"} if number % 10 == 0 else {}
        tracer.start_span("evaluate", attributes={**HASH, **error}).end()
    # A weight of 5 at a chance of 0.2: the standard deviation is 126.
    counted = sum(span.attributes["fhirpath.sampling.adjusted_count"] for span in doors.kept.spans)
    waiting = sum(sampler._suppressed.values())
    assert abs(counted + waiting - total) < 500
    for span in doors.kept.spans:
        assert span.context.trace_id % RANGE >= threshold_in(span.context.trace_state)
    weighed = sum(RANGE / (RANGE - threshold_in(span.context.trace_state)) for span in doors.kept.spans)
    suppressed = doors.counts.seen["suppressed", "baseline"] + doors.counts.seen["suppressed", "error"]
    assert (suppressed > 0) == (rate < 1e9)
    assert abs(weighed - total) < 500 or suppressed


class RecordOnly(Sampler):
    """A host's sampler that has spans for its own processors, and exports none."""

    def should_sample(self, *_args, **_named):
        return SamplingResult(SdkDecision.RECORD_ONLY)

    def get_description(self):
        return "RecordOnly"


def test_spans_that_are_only_recorded_reach_the_wrapped_processor_and_nobody_judges_them(make_doors):
    doors, last = make_doors("processor", sampler=RecordOnly()), Last()
    doors.door._wrapped = last
    evaluate(doors)
    assert [span.name for span in last.given] == ["parse", "sql", "evaluate"]
    assert not doors.asked


def test_at_the_exporter_a_foreign_parent_ends_the_waiting(make_doors):
    doors = make_doors("exporter")
    with doors.tracer("host").start_as_current_span("request"):
        doors.tracer().start_span("unmarked").end()
        assert doors.names() == []
    assert doors.names() == ["unmarked", "request"]
    assert doors.span("unmarked").attributes["fhirpath.sampling.reason"] == "slow"


def test_a_span_that_was_sampled_by_a_higher_threshold_keeps_it():
    flags = TraceFlags(TraceFlags.SAMPLED)
    high, low = (
        ReadableSpan("x", SpanContext(1, number, False, flags, TraceState([("ot", state)])))
        for number, state in ((1, "th:e"), (2, "th:8"))
    )
    copies = marked([high, low], Mark((9, 9), {}, 12 << 52))
    assert [copy.context.trace_state["ot"] for copy in copies] == ["th:e", "th:c"]


@pytest.mark.parametrize("kind", ["processor", "exporter"])
def test_threads_lose_nothing_and_hand_nothing_over_twice(make_doors, kind):
    turn = itertools.count()
    doors = make_doors(kind, lambda _: KEEP if next(turn) % 2 else DROP)

    def work(_):
        for _ in range(50):
            with doors.tracer("host").start_as_current_span("request"):
                evaluate(doors)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    names = Counter(doors.names())
    assert names == {"request": 400, "evaluate": 200, "parse": 200, "sql": 200}
    assert len({span.context.span_id for span in doors.kept.spans}) == 1_000
    assert doors.counts.seen == {("kept", "slow"): 200, ("dropped", "not_selected"): 200}


def test_stripping_takes_data_out_of_copies_of_foreign_spans_only(make_doors):
    doors = make_doors("exporter", strip_foreign=True)
    host = doors.tracer("host")
    attributes = dict.fromkeys(("db.statement", "db.query.text", "url.query", "patient"), "CANARY")
    with host.start_as_current_span("GET", attributes={**attributes, "http.route": "/Patient/{id}"}) as span:
        span.add_event("CANARY", {"message": "CANARY"})
        span.add_link(span.get_span_context(), {"note": "CANARY"})
        span.record_exception(ValueError("CANARY"))
        span.set_status(StatusCode.ERROR, "CANARY")
    evaluate(doors)
    stripped = doors.span("GET")
    assert b"CANARY" not in encode_spans(doors.kept.spans).SerializeToString()
    assert dict(stripped.attributes) == {"http.route": "/Patient/{id}"}
    assert [(event.name, without_escaped(event.attributes)) for event in stripped.events] == [
        ("other", {}),
        ("exception", {"exception.type": "ValueError"}),
    ]
    assert stripped.status.status_code is StatusCode.ERROR
    assert b"CANARY" in encode_spans([stripped._original]).SerializeToString()
    assert doors.span("evaluate").attributes["fhirpath.sampling.reason"] == "slow"


def test_a_shut_down_exporter_says_so(make_doors):
    doors = make_doors("exporter")
    assert isinstance(doors.door, TailSamplingExporter)
    doors.door.shutdown()
    doors.kept.result = SpanExportResult.FAILURE
    evaluate(doors)
    assert doors.counts.seen["span", "export_failed"] == 3


@pytest.mark.parametrize("kind", ["processor", "exporter"])
def test_a_failure_inside_of_a_door_is_counted_and_reaches_nobody(make_doors, monkeypatch, kind):
    doors = make_doors(kind)
    monkeypatch.setattr(doors.door, "_router", None)
    doors.tracer("host").start_span("request").end()
    assert doors.names() == []
    assert doors.counts.seen["span", "internal_error"] == (2 if kind == "processor" else 1)


def test_flushing_the_processor_flushes_what_it_wraps(make_doors):
    doors, asked = make_doors("processor"), []
    doors.door._wrapped.force_flush = lambda timeout_millis: asked.append(timeout_millis) or True
    assert doors.door.force_flush(5)
    assert asked == [5]

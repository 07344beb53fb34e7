"""Watched calls: what they give back, what is counted of them, and which of them are judged."""

from __future__ import annotations

import inspect
import itertools
import threading

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from fhirpath_otel import semconv
from fhirpath_otel.sampling.policies import Reasons, TailSampler
from fhirpath_otel.settings import Settings
from fhirpath_otel.telemetry import calls
from fhirpath_otel.telemetry.calls import watch_calls
from fhirpath_otel.telemetry.governor import Costs, Governor
from fhirpath_otel.telemetry.recorder import Decision, Recorder
from fhirpath_otel.telemetry.redaction import template_from

QUIET = Settings(baseline_rate=0.0, max_expressions=0)


def names(resource, times=1):
    """The names."""
    if resource == "fails":
        raise LookupError(resource)
    return [resource] * times


def describe(evaluation):
    evaluation.template = template_from("Patient.name")
    evaluation.engine_name = "fhirpathpy"
    evaluation.execution_mode = semconv.IN_MEMORY
    evaluation.compiled_before = True


@pytest.fixture
def watched(make_telemetry):
    """A watched function and its telemetry, under these settings."""

    def make(settings=QUIET, detail="auto", chance=None, **options):
        reasons = Reasons(settings, *([] if chance is None else [chance]))
        governor = Governor(1e6, detail, costs=Costs(judged=0.0, call=0.0, fold=0.0, stages=0.0, trace=1.0))
        telemetry = make_telemetry(
            TailSampler(reasons.policies, 1e9), ordinary=reasons, governor=governor, **options
        )
        return telemetry, watch_calls(telemetry.recorder, names, describe)

    return make


def count(telemetry, name="fhirpath.evaluation.duration"):
    return sum(point.count for point in telemetry.points(name))


def test_a_watched_function_is_the_function_in_all_that_one_sees(watched):
    _, call = watched()
    assert call("a", times=2) == ["a", "a"]
    assert (call.__name__, call.__doc__) == ("names", "The names.")
    assert inspect.signature(call) == inspect.signature(names)
    with pytest.raises(LookupError, match="fails"):
        call("fails")


@pytest.mark.parametrize("detail", ["auto", "basic", "stages", "operators"])
def test_every_call_is_counted_with_its_stage_and_results(watched, detail):
    telemetry, call = watched(detail=detail)
    for _ in range(1_000):
        call("a", 3)
    assert count(telemetry) == 1_000
    if detail != "auto":  # There so short a call is timed by sample, and the last round is not full.
        assert count(telemetry, "fhirpath.result.count") == 1_000
    if detail != "basic":
        [stage] = telemetry.points("fhirpath.stage.duration")
        assert (stage.count, stage.attributes["fhirpath.stage"]) == (1_000, "in_memory")
    assert telemetry.counts("fhirpath.telemetry.traces") == {("dropped", "not_selected"): 1_000}
    assert sum(telemetry.counts("fhirpath.telemetry.evaluations").values()) == 1_000
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 0}


def test_a_call_that_fails_is_kept_as_an_error_and_counted_once(watched):
    telemetry, call = watched()
    for number in range(300):
        if number % 100 == 50:
            with pytest.raises(LookupError):
                call("fails")
        else:
            call("a")
    assert telemetry.counts("fhirpath.telemetry.traces") == {
        ("dropped", "not_selected"): 297,
        ("kept", "error"): 3,
    }
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 0}
    root = telemetry.spans()["fhirpath evaluate"]
    assert root.attributes["error.type"] == "LookupError"
    assert "fails" not in str(root.to_json())


def test_a_slow_call_is_kept_with_its_own_times(watched, monkeypatch):
    monkeypatch.setattr(calls, "perf_counter_ns", itertools.count(1, 1_000_000).__next__)
    telemetry, call = watched(Settings(baseline_rate=0.0, max_expressions=0, slow_threshold=0.0005))
    for _ in range(3):
        call("a")
    assert telemetry.counts("fhirpath.telemetry.traces") == {("kept", "slow"): 3}


def test_the_baseline_takes_its_share_of_calls(watched):
    telemetry, call = watched(Settings(baseline_rate=0.1, max_expressions=0))
    for _ in range(5_000):
        call("a")
    spans = [span for span in telemetry.exporter.get_finished_spans() if span.name == "fhirpath evaluate"]
    assert 350 < len(spans) < 650
    estimate = sum(span.attributes["fhirpath.sampling.adjusted_count"] for span in spans)
    assert estimate == pytest.approx(5_000, rel=0.25)
    assert count(telemetry) == 5_000


def test_calls_are_children_of_the_span_that_is_current(watched):
    telemetry, call = watched(Settings(baseline_rate=1.0, max_expressions=0))
    tracer = telemetry.tracer_provider.get_tracer("host")
    for _ in range(2):
        with tracer.start_as_current_span("request") as request:
            call("a")
            call("a")
        roots = [s for s in telemetry.exporter.get_finished_spans() if s.name == "fhirpath evaluate"]
        assert [root.parent.span_id for root in roots[-2:]] == [request.get_span_context().span_id] * 2


def test_below_an_unsampled_caller_calls_are_counted_as_such(watched):
    telemetry, call = watched(Settings(baseline_rate=1.0))
    parent = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=True))
    with trace.use_span(parent):
        for _ in range(300):
            call("a")
    assert telemetry.counts("fhirpath.telemetry.traces") == {("dropped", "unsampled_parent"): 300}
    assert not telemetry.spans()


def test_a_trace_that_is_asked_for_is_kept_whatever_was_before(watched):
    telemetry, call = watched()
    for _ in range(100):
        call("a")
    token = otel_context.attach(baggage.set_baggage(semconv.DEBUG_BAGGAGE, "true"))
    try:
        call("a")
    finally:
        otel_context.detach(token)
    call("a")
    assert telemetry.counts("fhirpath.telemetry.traces") == {
        ("dropped", "not_selected"): 101,
        ("kept", "forced"): 1,
    }


def test_dimensions_label_the_duration_and_the_root(watched):
    telemetry, call = watched(Settings(baseline_rate=1.0, max_expressions=0), dimensions=("tenant",))
    for tenant in ("north", "south", "south"):
        context = baggage.set_baggage("secret", "CANARY", baggage.set_baggage("tenant", tenant))
        token = otel_context.attach(context)
        try:
            call("a")
        finally:
            otel_context.detach(token)
    counts = {
        point.attributes["tenant"]: point.count for point in telemetry.points("fhirpath.evaluation.duration")
    }
    assert counts == {"north": 1, "south": 2}
    assert telemetry.spans()["fhirpath evaluate"].attributes["tenant"] == "south"
    assert "CANARY" not in "".join(span.to_json() for span in telemetry.exporter.get_finished_spans())


def test_calls_that_are_timed_by_sample_are_counted_all(watched):
    telemetry, call = watched()
    call("a")
    [watch] = telemetry.recorder.watches
    watch.set_detail("basic", "stages", 10**9, 7)
    telemetry.recorder._governor.choose = lambda _: None
    for _ in range(500):
        call("a")
    assert count(telemetry) == 501
    counted = telemetry.counts("fhirpath.telemetry.evaluations")
    assert sum(counted.values()) == 501
    assert counted[(semconv.COUNTED,)] == pytest.approx(500 * 6 / 7, abs=8)


def test_switched_off_nothing_is_counted_until_it_is_on_again(watched):
    telemetry, call = watched()
    for detail, calls_made in (("auto", 5), ("off", 7), ("stages", 3), ("off", 1), ("auto", 2)):
        telemetry.recorder.set_detail(detail)
        for _ in range(calls_made):
            assert call("a") == ["a"]
    assert count(telemetry) == 10


def test_without_a_provider_a_call_is_only_a_call():
    recorder = Recorder(lambda _: Decision(True, "error"), ordinary=Reasons(QUIET))
    call = watch_calls(recorder, names, describe)
    assert [call("a") for _ in range(3)] == [["a"]] * 3
    assert not recorder.watches


def test_operators_are_noted_by_the_engine_that_can_do_it(make_telemetry):
    reasons, noted = Reasons(QUIET), []
    telemetry = make_telemetry(TailSampler(reasons.policies, 1e9), ordinary=reasons)
    telemetry.recorder.set_detail("operators")

    def with_operators(evaluation):
        noted.append(evaluation)
        return names

    call = watch_calls(telemetry.recorder, names, describe, with_operators=with_operators)
    for _ in range(5):
        assert call("a") == ["a"]
    assert len(noted) == 5
    assert telemetry.counts("fhirpath.telemetry.evaluations") == {("operators",): 5}


def test_threads_lose_no_call(watched):
    telemetry, call = watched(Settings(baseline_rate=0.01))

    def run():
        for _ in range(2_000):
            call("a")

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(telemetry) == 16_000
    assert sum(telemetry.counts("fhirpath.telemetry.traces").values()) == 16_000


@pytest.mark.parametrize("detail", ["auto", "stages"])
def test_calls_that_were_watched_before_count_with_the_provider_that_a_forked_child_has(watched, detail):
    telemetry, call = watched(detail=detail)
    for _ in range(300):
        call("a")
    assert count(telemetry) == 300
    parents, telemetry.reader = telemetry.reader, InMemoryMetricReader()
    telemetry.recorder.count_anew(MeterProvider([telemetry.reader], shutdown_on_exit=False))
    for _ in range(500):
        call("a")
    with pytest.raises(LookupError):
        call("fails")
    assert count(telemetry) == 501
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 0}
    telemetry.reader = parents
    assert count(telemetry) == 300


def test_a_result_without_a_size_is_given_back_as_it_is(make_telemetry):
    reasons = Reasons(QUIET)
    telemetry = make_telemetry(TailSampler(reasons.policies, 1e9), ordinary=reasons)
    call = watch_calls(telemetry.recorder, iter, describe)
    assert [list(call([number])) for number in range(300)] == [[number] for number in range(300)]
    assert count(telemetry) == 300
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 0}


def test_baggage_that_is_no_text_is_no_dimension(watched):
    telemetry, call = watched(dimensions=("tenant",))
    token = otel_context.attach(baggage.set_baggage("tenant", object()))
    try:
        assert call("a") == ["a"]
    finally:
        otel_context.detach(token)
    [point] = telemetry.points("fhirpath.evaluation.duration")
    assert "tenant" not in point.attributes

"""The weight of a kept trace in the `tracestate` of its spans, under each kind of caller and of host's sampler."""

from __future__ import annotations

import random

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBasedTraceIdRatio, Sampler, SamplingResult
from opentelemetry.sdk.trace.sampling import Decision as SdkDecision
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from fhirpath_otel.sampling.policies import Reasons, TailSampler
from fhirpath_otel.settings import Settings
from fhirpath_otel.telemetry.own_tracer import OwnTracer, start_root
from fhirpath_otel.telemetry.recorder import Decision
from fhirpath_otel.telemetry.tracestate import RANGE, threshold_in, threshold_of

QUARTER = threshold_of(0.25)


class Consistent(Sampler):
    """A host's sampler that says its threshold, as the SDK's composite sampler does."""

    def __init__(self, threshold: int, state: str) -> None:
        self.threshold, self.state = threshold, state

    def should_sample(self, parent_context, trace_id, name, *_args, **_named):
        if trace_id % RANGE < self.threshold:
            return SamplingResult(SdkDecision.DROP)
        state = TraceState([("ot", self.state)]) if self.state else None
        return SamplingResult(SdkDecision.RECORD_AND_SAMPLE, None, state)

    def get_description(self):
        return "Consistent"


def caller(state=None, trace_id=(1 << 56) - 1) -> NonRecordingSpan:
    flags = TraceFlags(TraceFlags.SAMPLED)
    return NonRecordingSpan(SpanContext(trace_id, 0x77, True, flags, TraceState(state or [])))


def kept(telemetry, error_type=None, below=None):
    """The spans of one evaluation, which has two stages."""
    telemetry.exporter.clear()
    with trace.use_span(below or trace.INVALID_SPAN):
        evaluation = telemetry.recorder.begin()
    evaluation.stages += [("parse", 0, 1), ("sql", 1, 2)]
    telemetry.recorder.finish(evaluation, error_type)
    return telemetry.exporter.get_finished_spans()


@pytest.mark.parametrize("sampler", [None, ALWAYS_ON])
def test_the_root_and_its_children_carry_the_threshold_of_the_reason(make_telemetry, sampler):
    for threshold, text in ((0, "th:0"), (QUARTER, "th:c")):
        telemetry = make_telemetry(lambda _, t=threshold: Decision(True, "error", 1.0, t), sampler)
        spans = kept(telemetry)
        assert [dict(span.context.trace_state) for span in spans] == [{"ot": text}] * 3


def test_a_new_trace_ends_in_the_randomness_it_was_kept_by(make_telemetry):
    telemetry = make_telemetry(lambda _: Decision(True, "baseline", 4.0, QUARTER, RANGE - 5))
    first, second = kept(telemetry), kept(telemetry)
    assert {span.context.trace_id % RANGE for span in (*first, *second)} == {RANGE - 5}
    assert len({span.context.trace_id for span in (*first, *second)}) == 2
    assert all(span.context.trace_flags.sampled for span in first)


def test_other_scopes_and_other_spans_of_ours_are_as_they_were(make_telemetry):
    telemetry = make_telemetry()
    kept(telemetry)
    for scope in ("host", "fhirpath_otel"):
        telemetry.exporter.clear()
        telemetry.tracer_provider.get_tracer(scope).start_span("request").end()
        [span] = telemetry.exporter.get_finished_spans()
        assert not span.context.trace_state


@pytest.mark.parametrize(
    ("state", "threshold", "expected"),
    [
        ([("ot", "th:8")], 0, {"ot": "th:8"}),
        ([("ot", "th:8")], QUARTER, {"ot": "th:c"}),
        ([("ot", "th:e")], QUARTER, {"ot": "th:e"}),
        ([("host", "a"), ("ot", "th:0;x:1")], 0, {"ot": "th:0;x:1", "host": "a"}),
        ([("host", "a")], QUARTER, {"host": "a"}),
        ([], 0, {}),
        ([("ot", "th:8")], None, {"ot": "th:8"}),
    ],
)
def test_below_a_sampled_caller_thresholds_combine_as_their_maximum(
    make_telemetry, state, threshold, expected
):
    telemetry = make_telemetry(lambda _: Decision(True, "baseline", 1.0, threshold))
    spans = kept(telemetry, below=caller(state))
    assert [dict(span.context.trace_state) for span in spans] == [expected] * 3
    assert {span.context.trace_id for span in spans} == {(1 << 56) - 1}


def test_a_threshold_that_its_trace_does_not_reach_is_left_alone(make_telemetry):
    spans = kept(make_telemetry(), below=caller([("ot", "th:8")], trace_id=5))
    assert [dict(span.context.trace_state) for span in spans] == [{"ot": "th:8"}] * 3


def test_a_hosts_ratio_leaves_no_weight_that_we_could_tell_and_is_no_obstacle_to_the_baseline(make_telemetry):
    source = random.Random(3)  # noqa: S311
    telemetry = make_telemetry(
        lambda _: Decision(True, "baseline", 100.0, threshold_of(0.01), RANGE - 1 - source.randrange(2**49)),
        ParentBasedTraceIdRatio(0.002),
    )
    spans = [span for _ in range(3_000) for span in kept(telemetry)]
    # 6 of 3,000 traces; with the randomness of our draw in their ids there would be none.
    assert spans
    assert not any(span.context.trace_state for span in spans)


@pytest.mark.parametrize(
    ("host", "threshold", "expected"),
    [("th:8", 0, "th:8"), ("th:8", QUARTER, "th:c"), ("th:e", QUARTER, "th:e"), ("", QUARTER, None)],
)
def test_a_host_that_says_its_threshold_combines_with_ours(make_telemetry, host, threshold, expected):
    telemetry = make_telemetry(
        lambda _: Decision(True, "baseline", 1.0, threshold, RANGE - 1),
        Consistent(8 << 52 if host else 0, host),
    )
    root = kept(telemetry)[-1]
    assert root.context.trace_state.get("ot") == expected


@pytest.mark.parametrize("incoming", [None, 0, 8 << 52])
def test_weights_by_threshold_estimate_all_evaluations(make_telemetry, incoming):
    """As the collector's `span_metrics` computes it: 2⁵⁶ / (2⁵⁶ - th) for each span."""
    source = random.Random(5)  # noqa: S311
    settings = Settings(baseline_rate=0.2, max_expressions=0)
    telemetry = make_telemetry(TailSampler(Reasons(settings, source.random).policies, 1e9))
    total, estimate = 4_000, 0.0
    for number in range(total):
        below = None
        if incoming is not None:
            trace_id = source.getrandbits(128)
            if trace_id % RANGE < incoming:
                continue
            below = caller([("ot", f"th:{incoming:014x}")], trace_id)
        for span in kept(telemetry, "syntax" if number % 10 == 0 else None, below)[-1:]:
            threshold = threshold_in(span.context.trace_state)
            assert span.context.trace_id % RANGE >= threshold
            estimate += RANGE / (RANGE - threshold)
    # A weight of 5 at a chance of 0.2: the standard deviation is 126.
    assert abs(estimate - total) < 500


def test_a_provider_that_is_set_later_is_found_and_kept(monkeypatch):
    current = trace.ProxyTracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: current)
    own = OwnTracer(None, None)
    assert not own.tracer().start_span("x").is_recording()
    current = TracerProvider(shutdown_on_exit=False)
    tracer = own.tracer()
    root = start_root(tracer, "x", None, {}, 1, threshold=0)
    assert dict(root.get_span_context().trace_state) == {"ot": "th:0"}
    assert own.tracer() is tracer


def test_a_tracer_is_wrapped_once_however_many_recorders_share_it():
    provider = TracerProvider(shutdown_on_exit=False)
    first, second = OwnTracer(None, provider).tracer(), OwnTracer(None, provider).tracer()
    for tracer in (first, second):
        assert tracer.sampler._inner is provider.sampler
        assert tracer.id_generator._inner is provider.id_generator
        assert tracer.sampler.get_description() == provider.sampler.get_description()


def test_without_an_sdk_there_is_no_weight_and_no_failure():
    tracer = OwnTracer(None, trace.NoOpTracerProvider()).tracer()
    assert not start_root(tracer, "x", None, {}, 1, threshold=0, randomness=1).is_recording()


def test_a_sampler_that_fails_leaves_no_wish_behind():
    class Failing(Consistent):
        def should_sample(self, *_args, **_named):
            raise RuntimeError

    failing = OwnTracer(None, TracerProvider(sampler=Failing(0, ""), shutdown_on_exit=False)).tracer()
    with pytest.raises(RuntimeError):
        start_root(failing, "x", None, {}, 1, threshold=0, randomness=1)
    tracer = OwnTracer(None, TracerProvider(shutdown_on_exit=False)).tracer()
    assert not tracer.start_span("x").get_span_context().trace_state

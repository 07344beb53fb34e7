"""From begin to finish: who is kept, who is the parent, and that nothing ever reaches the host."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from fhirpath_otel.telemetry.recorder import Decision, Evaluation, Recorder
from fhirpath_otel.telemetry.redaction import Template


def remote_parent(sampled: bool) -> NonRecordingSpan:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return NonRecordingSpan(SpanContext(0xABC, 0x77, is_remote=True, trace_flags=flags))


def test_a_kept_evaluation_tells_its_trace_id(telemetry):
    outcome = telemetry.recorder.finish(telemetry.recorder.begin())
    [span] = telemetry.spans().values()
    assert (outcome.kept, outcome.decision, outcome.reason) == (True, "kept", "baseline")
    assert outcome.trace_id == span.context.trace_id


@pytest.mark.parametrize(
    ("reason", "decision"), [("not_selected", "dropped"), ("slow", "suppressed"), ("error", "suppressed")]
)
def test_what_is_not_kept_makes_no_span(make_telemetry, reason, decision):
    telemetry = make_telemetry(lambda _: Decision(False, reason))
    outcome = telemetry.recorder.finish(telemetry.recorder.begin())
    assert (outcome.kept, outcome.decision, outcome.reason, outcome.trace_id) == (
        False,
        decision,
        reason,
        None,
    )
    assert not telemetry.spans()
    assert telemetry.counts("fhirpath.telemetry.traces") == {(decision, reason): 1}


def test_an_evaluation_is_a_child_of_the_span_that_was_current_at_its_begin(telemetry):
    tracer = telemetry.tracer_provider.get_tracer("host")
    with tracer.start_as_current_span("request") as request:
        evaluation = telemetry.recorder.begin()
    with tracer.start_as_current_span("another"):
        telemetry.recorder.finish(evaluation)
    span = telemetry.spans()["fhirpath evaluate"]
    assert span.parent.span_id == request.get_span_context().span_id
    assert span.context.trace_id == request.get_span_context().trace_id


def test_without_a_current_span_an_evaluation_is_a_root(telemetry):
    telemetry.recorder.finish(telemetry.recorder.begin())
    assert telemetry.spans()["fhirpath evaluate"].parent is None


def test_a_sampled_remote_parent_is_followed(make_telemetry):
    telemetry = make_telemetry(sampler=ParentBased(ALWAYS_OFF))
    with trace.use_span(remote_parent(sampled=True)):
        outcome = telemetry.recorder.finish(telemetry.recorder.begin())
    assert outcome.trace_id == 0xABC
    assert telemetry.spans()["fhirpath evaluate"].parent.span_id == 0x77


def test_below_an_unsampled_parent_nothing_is_emitted_and_no_policy_is_asked(make_telemetry):
    asked = []
    telemetry = make_telemetry(
        lambda evaluation: asked.append(evaluation) or Decision(True, "error"), ALWAYS_ON
    )
    with trace.use_span(remote_parent(sampled=False)):
        outcome = telemetry.recorder.finish(telemetry.recorder.begin(), "Oops")
    assert (outcome.kept, outcome.reason) == (False, "unsampled_parent")
    assert not asked
    assert not telemetry.spans()
    assert telemetry.counts("fhirpath.telemetry.traces") == {("dropped", "unsampled_parent"): 1}
    assert len(telemetry.points("fhirpath.evaluation.duration")) == 1


def test_what_the_hosts_sampler_refuses_is_counted(make_telemetry):
    telemetry = make_telemetry(sampler=ALWAYS_OFF)
    outcome = telemetry.recorder.finish(telemetry.recorder.begin())
    assert (outcome.kept, outcome.decision, outcome.reason) == (False, "dropped", "host_sampler")
    assert not telemetry.spans()
    assert telemetry.counts("fhirpath.telemetry.traces") == {("dropped", "host_sampler"): 1}


@pytest.mark.parametrize("parent", [trace.INVALID_SPAN, remote_parent(sampled=True)])
def test_without_an_sdk_everything_is_dropped(parent):
    recorder = Recorder(
        lambda _: Decision(True, "error"),
        tracer_provider=trace.NoOpTracerProvider(),
    )
    with trace.use_span(parent):
        outcome = recorder.finish(recorder.begin())
    assert (outcome.kept, outcome.reason, outcome.trace_id) == (False, "no_sdk", None)


def test_finishing_twice_counts_once(telemetry):
    evaluation = telemetry.recorder.begin()
    first = telemetry.recorder.finish(evaluation)
    assert telemetry.recorder.finish(evaluation, "LateError") is first
    assert telemetry.counts("fhirpath.telemetry.traces") == {("kept", "baseline"): 1}
    assert len(telemetry.exporter.get_finished_spans()) == 1


def test_a_failure_of_ours_is_counted_said_once_and_never_raised(make_telemetry, caplog):
    def decide(evaluation: Evaluation) -> Decision:
        raise RuntimeError("CANARY-MESSAGE")

    telemetry = make_telemetry(decide)
    with caplog.at_level(logging.DEBUG):
        outcomes = [telemetry.recorder.finish(telemetry.recorder.begin()) for _ in range(3)]
    assert {(outcome.kept, outcome.reason) for outcome in outcomes} == {(False, "internal_error")}
    assert telemetry.counts("fhirpath.telemetry.dropped") == {("evaluation", "internal_error"): 3}
    [record] = caplog.records
    assert record.name == "fhirpath_otel"
    assert "RuntimeError" in record.getMessage()
    assert "CANARY" not in caplog.text


def test_analysis_comes_before_the_decision_and_sees_the_caller(make_telemetry):
    seen = []

    def analyse(evaluation):
        seen.append(evaluation.caller)
        return ("found",)

    telemetry = make_telemetry(
        lambda evaluation: seen.append(evaluation.findings) or Decision(False, "not_selected"),
        analyse=analyse,
    )
    telemetry.recorder._instruments.record = lambda *_: None
    with trace.use_span(remote_parent(sampled=True)):
        telemetry.recorder.finish(telemetry.recorder.begin())
    assert (seen[0].trace_id, seen[0].span_id, seen[1]) == (0xABC, 0x77, ("found",))


def test_a_rule_that_fails_costs_its_findings_only(make_telemetry, caplog):
    def analyse(evaluation):
        raise RuntimeError("CANARY-MESSAGE")

    telemetry = make_telemetry(analyse=analyse)
    assert telemetry.recorder.finish(telemetry.recorder.begin()).kept
    assert telemetry.counts("fhirpath.telemetry.dropped") == {("finding", "internal_error"): 1}
    assert "CANARY" not in caplog.text


def test_a_context_that_cannot_be_had_costs_the_parent_not_the_evaluation(telemetry, monkeypatch, caplog):
    def fail():
        raise RuntimeError("CANARY")

    monkeypatch.setattr(telemetry.recorder, "_current_context", fail)
    evaluation = telemetry.recorder.begin()
    monkeypatch.undo()
    assert telemetry.recorder.finish(evaluation).kept
    assert telemetry.counts("fhirpath.telemetry.dropped") == {("evaluation", "internal_error"): 1}
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 0}
    assert "CANARY" not in caplog.text


@pytest.mark.parametrize("kept", [True, False])
def test_stages_that_telemetry_does_not_know_lose_the_evaluation_not_the_host(make_telemetry, kept, caplog):
    telemetry = make_telemetry(lambda _: Decision(kept, "slow"))
    evaluation = telemetry.recorder.begin()
    evaluation.stages.append(("CANARY", 1, 2))
    assert telemetry.recorder.finish(evaluation).reason == "internal_error"
    assert "CANARY" not in caplog.text
    assert telemetry.counts("fhirpath.telemetry.dropped") == {("evaluation", "internal_error"): 1}
    assert not telemetry.points("fhirpath.stage.duration")


def test_deciding_sees_the_duration_the_error_and_the_template(make_telemetry):
    seen = []
    telemetry = make_telemetry(lambda evaluation: seen.append(evaluation) or Decision(False, "not_selected"))
    evaluation = telemetry.recorder.begin()
    evaluation.template = Template("Patient.name", "0123456789abcdef")
    telemetry.recorder.finish(evaluation, "syntax")
    assert seen == [evaluation]
    assert evaluation.error_type == "syntax"
    assert evaluation.duration_ns == evaluation.end_ns - evaluation.start_ns > 0


def noted(stages=(), **facts) -> Evaluation:
    evaluation = Evaluation()
    evaluation.start_ns, evaluation.end_ns = 1_000, 11_000
    evaluation.stages.extend(stages)
    for name, value in facts.items():
        setattr(evaluation, name, value)
    return evaluation


@pytest.mark.parametrize(
    ("evaluation", "active_ns", "stages"),
    [
        (noted(), 10_000, {}),
        (noted([("parse", 1_000, 3_000)]), 10_000, {"parse": 2_000}),
        # The consumer dawdled for 6 of the SQL stage's 8 µs.
        (
            noted([("parse", 1_000, 3_000), ("sql", 3_000, 11_000)], sql_active_ns=2_000),
            4_000,
            {"parse": 2_000, "sql": 2_000},
        ),
        # Two statements.
        (noted([("sql", 2_000, 3_000), ("sql", 4_000, 8_000)]), 10_000, {"sql": 5_000}),
        # Reading and evaluating in memory overlap; the consumer's time is what was noted.
        (
            noted(
                [("sql", 2_000, 10_000), ("in_memory", 2_000, 11_000)],
                execution_mode="in_memory",
                sql_active_ns=1_000,
                in_memory_active_ns=3_000,
                consumer_ns=4_500,
            ),
            5_500,
            {"sql": 1_000, "in_memory": 3_000},
        ),
        (
            noted([("sql", 2_000, 10_000)], execution_mode="in_memory", sql_active_ns=1_000),
            10_000,
            {"sql": 1_000},
        ),
        # Never ran.
        (noted([("parse", 1_000, 2_000)], sql_active_ns=5), 10_000, {"parse": 1_000}),
    ],
)
def test_the_consumers_time_is_nobody_elses(evaluation, active_ns, stages):
    assert evaluation.active_ns() == active_ns
    assert evaluation.stage_durations() == stages


def never_asked(_: Evaluation) -> Decision:
    raise AssertionError("nobody listens")


def test_while_no_provider_is_set_nothing_is_judged(monkeypatch, caplog):
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr("opentelemetry.metrics._internal._METER_PROVIDER", None)
    recorder = Recorder(never_asked)
    outcome = recorder.finish(recorder.begin(), "Oops")
    assert (outcome.kept, outcome.decision, outcome.reason) == (False, "dropped", "no_sdk")
    assert not caplog.records


def test_an_sdk_that_is_disabled_is_no_sdk(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    recorder = Recorder(
        never_asked,
        tracer_provider=TracerProvider(shutdown_on_exit=False),
        meter_provider=MeterProvider(shutdown_on_exit=False),
    )
    assert recorder.finish(recorder.begin()).reason == "no_sdk"
    assert not caplog.records


PROVIDERS_SET_LATER = """
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from fhirpath_otel.telemetry.recorder import Decision, Recorder

recorder = Recorder(lambda _: Decision(True, "baseline"))
reader = InMemoryMetricReader()
steps = {
    "traces": lambda: trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False)),
    "metrics": lambda: metrics.set_meter_provider(MeterProvider([reader], shutdown_on_exit=False)),
}
print(recorder.finish(recorder.begin()).decision)
for step in ORDER:
    steps[step]()
    print(recorder.finish(recorder.begin()).decision)
[scope] = reader.get_metrics_data().resource_metrics[0].scope_metrics
print(*(p.count for m in scope.metrics if m.name == "fhirpath.evaluation.duration" for p in m.data.data_points))
"""


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (["traces", "metrics"], ["dropped", "kept", "kept", "1"]),
        (["metrics", "traces"], ["dropped", "dropped", "kept", "2"]),
    ],
)
def test_providers_that_are_set_later_are_used(order, expected):
    script = PROVIDERS_SET_LATER.replace("ORDER", repr(order))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (expected, "")

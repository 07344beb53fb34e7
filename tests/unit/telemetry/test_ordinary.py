"""Evaluations that need no judging of their own are counted and weighed as if each had been judged."""

from __future__ import annotations

import os
import random
from operator import length_hint

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from fhirpath_otel import semconv
from fhirpath_otel.analysis.analyser import Analyser
from fhirpath_otel.sampling.policies import Reasons, TailSampler
from fhirpath_otel.settings import Settings
from fhirpath_otel.telemetry import metrics, watches
from fhirpath_otel.telemetry.governor import Costs, Governor
from fhirpath_otel.telemetry.redaction import template_from
from fhirpath_otel.telemetry.tracestate import RANGE, randomness_of, threshold_in, threshold_of
from fhirpath_otel.telemetry.watch import Known

FREE = Costs(counted=0.0, call=0.0, basic=0.0, stages=0.0, judged=0.0, trace=1.0, fold=0.0)


@pytest.fixture
def make_watching(make_telemetry):
    """A recorder as `configure` makes it, with chances of its own and without a budget."""

    def make(rate=1e9, seed=11, detail="auto", **settings):
        reasons = Reasons(Settings(**settings), random.Random(seed).random)  # noqa: S311
        analyser = Analyser()
        return make_telemetry(
            TailSampler(reasons.policies, rate, lambda: 0.0),
            ordinary=reasons,
            analyse=analyser,
            may_find=analyser.may_find,
            governor=Governor(1e6, detail, costs=FREE),
            dimensions=("tenant",),
        )

    return make


def evaluate(telemetry, known, text="a", duration_ns=1_000, hit=True, sql=True):
    evaluation = telemetry.recorder.begin()
    evaluation.template = template_from(text)
    evaluation.execution_mode = semconv.PUSHDOWN if sql else semconv.IN_MEMORY
    evaluation.cache_hit = evaluation.compiled_before = hit
    evaluation.db_system, evaluation.statement_summary = "duckdb", "SELECT Patient"
    telemetry.recorder.expect(evaluation, known)
    evaluation.sql_active_ns = duration_ns
    evaluation.start_ns -= 1_000_000  # so that what the test itself takes makes no evaluation slow
    start = evaluation.start_ns
    evaluation.stages += [("parse", start, start + 500), ("sql", start, start + duration_ns)]
    evaluation.result_count = 2
    evaluation.consumer_ns = 0
    return telemetry.recorder.finish(evaluation)


def asks_nothing(known):
    watch = known.last[1]
    return watch.brief and length_hint(watch.passes) > watch.spare


def roots(telemetry):
    return [s for s in telemetry.exporter.get_finished_spans() if s.name == "fhirpath evaluate"]


def weight(telemetry):
    return sum(root.attributes["fhirpath.sampling.adjusted_count"] for root in roots(telemetry))


def total(telemetry, name):
    return sum(point.count for point in telemetry.points(name))


def test_ordinary_evaluations_are_in_every_metric(make_watching):
    telemetry, known = make_watching(baseline_rate=0.0), Known()
    for _ in range(500):
        evaluate(telemetry, known)
    assert len(telemetry.recorder.watches) == 1
    for name in ("evaluation.duration", "result.count"):
        assert total(telemetry, f"fhirpath.{name}") == 500
    assert {point.count for point in telemetry.points("fhirpath.stage.duration")} == {500}
    assert total(telemetry, "db.client.operation.duration") == 500
    assert telemetry.counts("fhirpath.parser.cache.requests") == {("hit",): 500}
    assert telemetry.counts("fhirpath.telemetry.traces") == {
        ("kept", "first_sighting"): 1,
        ("dropped", "not_selected"): 499,
    }
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 0}


@pytest.mark.parametrize("rate", [1e9, 40])
def test_adjusted_counts_add_up_to_all_evaluations_with_and_without_suppression(make_watching, rate):
    """Without suppression 20,000 ± 4 standard deviations; what is suppressed at the end stands for nobody yet."""
    telemetry, known = make_watching(rate, baseline_rate=0.05), Known()
    for _ in range(20_000):
        evaluate(telemetry, known)
    kept = roots(telemetry)
    if rate == 40:
        assert len([root for root in kept if root.attributes["fhirpath.sampling.reason"] == "baseline"]) == 40
        suppressed = sum(telemetry.recorder._judge.decide._suppressed.values())
        assert weight(telemetry) + suppressed == pytest.approx(20_000, rel=0.12)
    else:
        assert weight(telemetry) == pytest.approx(20_000, rel=0.12)
        assert len(kept) >= 880
    assert sum(telemetry.counts("fhirpath.telemetry.traces").values()) == 20_000


def test_what_is_drawn_before_it_begins_ends_in_a_trace_id_that_fits(make_watching):
    telemetry, known = make_watching(baseline_rate=0.1), Known()
    for _ in range(600):
        evaluate(telemetry, known)
    kept = [root for root in roots(telemetry) if root.attributes["fhirpath.sampling.reason"] == "baseline"]
    assert len(kept) > 30
    for root in kept:
        assert threshold_in(root.context.trace_state) == threshold_of(0.1)
        assert threshold_of(0.1) <= randomness_of(root.context) < RANGE
    # Not always the same ones among those from the threshold on.
    assert len({randomness_of(root.context) >= threshold_of(0.05) for root in kept}) == 2


def test_exemplars_point_only_at_traces_that_were_exported(make_watching):
    telemetry, known = make_watching(baseline_rate=0.02), Known()
    tracer = telemetry.tracer_provider.get_tracer("host")
    for number in range(1_500):
        with tracer.start_as_current_span("request"):
            evaluate(telemetry, known)
        if number % 500 == 0:
            telemetry.recorder.finish(telemetry.recorder.begin(), "Oops")
    exported = {root.context.span_id for root in roots(telemetry)}
    data = telemetry.reader.get_metrics_data()
    exemplars = [
        exemplar
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        for exemplar in getattr(point, "exemplars", ())
    ]
    assert exemplars
    assert {exemplar.span_id for exemplar in exemplars} <= exported


def test_one_that_took_longer_than_usual_is_judged(make_watching):
    telemetry, known = make_watching(baseline_rate=0.0, slow_threshold=60), Known()
    chance = random.Random(5)  # noqa: S311
    for _ in range(1_024):
        evaluation = telemetry.recorder.begin()
        evaluation.template = template_from("a")
        evaluation.cache_hit = evaluation.compiled_before = True
        telemetry.recorder.expect(evaluation, known)
        evaluation.start_ns -= round(1e9 * chance.uniform(0.9, 1.1))
        telemetry.recorder.finish(evaluation)
    before = len(roots(telemetry))
    evaluation = telemetry.recorder.begin()
    evaluation.template = template_from("a")
    evaluation.cache_hit = evaluation.compiled_before = True
    telemetry.recorder.expect(evaluation, known)
    evaluation.start_ns -= round(2e9)
    assert telemetry.recorder.finish(evaluation).reason == semconv.SLOW
    assert len(roots(telemetry)) == before + 1


def test_a_loop_below_a_callers_span_is_found(make_watching):
    telemetry, known = make_watching(baseline_rate=0.0), Known()
    tracer = telemetry.tracer_provider.get_tracer("host")
    evaluate(telemetry, known)
    with tracer.start_as_current_span("request"):
        outcomes = [evaluate(telemetry, known, duration_ns=2_000_000) for _ in range(25)]
    assert [number for number, outcome in enumerate(outcomes) if outcome.reason == "bottleneck"] == [9, 19]
    assert telemetry.counts("fhirpath.bottleneck.findings") == {("n-plus-one", "warning", "sql"): 2}


def caller(threshold, randomness):
    state = TraceState([("ot", f"th:{threshold:014x}")])
    return NonRecordingSpan(
        SpanContext((7 << 56) + randomness, 3, True, TraceFlags(TraceFlags.SAMPLED), state)
    )


def test_below_a_caller_with_a_threshold_its_trace_decides_about_the_baseline(make_watching):
    telemetry, known = make_watching(baseline_rate=0.25), Known()
    evaluate(telemetry, known)
    low, high = threshold_of(0.5), threshold_of(0.25)
    with trace.use_span(caller(low, high + 5)):
        assert {evaluate(telemetry, known).reason for _ in range(50)} == {"baseline"}
    with trace.use_span(caller(low, high - 5)):
        assert {evaluate(telemetry, known).reason for _ in range(50)} == {"not_selected"}


def test_a_first_sighting_that_was_suppressed_is_kept_later(make_watching):
    telemetry, known, other = make_watching(1.0, baseline_rate=0.0), Known(), Known()
    assert evaluate(telemetry, known, "a").kept
    assert evaluate(telemetry, other, "b").decision == semconv.SUPPRESSED
    sampler = telemetry.recorder._judge.decide
    sampler._clock = lambda: 100.0
    kept = [outcome for outcome in (evaluate(telemetry, other, "b") for _ in range(200)) if outcome.kept]
    assert [outcome.reason for outcome in kept] == ["first_sighting"]


def test_expressions_beyond_the_cap_share_a_watch(make_watching):
    telemetry = make_watching(baseline_rate=0.0, max_expressions=3)
    telemetry.recorder._instruments._routes._max_expressions = 3
    known = [Known() for _ in range(20)]
    for _ in range(5):
        for number in range(20):
            evaluate(telemetry, known[number], str(number))
    assert len(telemetry.recorder.watches) == 4
    counts = {
        point.attributes["fhirpath.expression.hash"]: point.count
        for point in telemetry.points("fhirpath.evaluation.duration")
    }
    assert counts == {**{template_from(str(number)).hash: 5 for number in range(3)}, "other": 85}


def test_the_number_of_watches_is_bounded(make_watching, monkeypatch):
    monkeypatch.setattr(metrics, "MAX_WATCHES", 5)
    monkeypatch.setattr(metrics, "SHARED_WATCHES", 1)
    telemetry = make_watching(baseline_rate=0.0)
    known = [Known() for _ in range(20)]
    for _ in range(3):
        for number in range(20):
            evaluate(telemetry, known[number], str(number))
    assert len(telemetry.recorder.watches) == 5
    assert total(telemetry, "fhirpath.evaluation.duration") == 60


def test_values_of_dimensions_are_bounded(make_watching, monkeypatch):
    from opentelemetry import baggage
    from opentelemetry import context as otel_context

    monkeypatch.setattr(watches, "MAX_DIMENSION_VALUES", 3)
    telemetry, known = make_watching(baseline_rate=0.0), Known()
    for number in range(10):
        token = otel_context.attach(baggage.set_baggage("tenant", f"{number}" * 100))
        evaluate(telemetry, known)
        evaluate(telemetry, known)
        otel_context.detach(token)
    counts = {
        point.attributes["tenant"]: point.count for point in telemetry.points("fhirpath.evaluation.duration")
    }
    assert counts == {"0" * 64: 2, "1" * 64: 2, "2" * 64: 2, "other": 14}


def test_a_pinned_basic_detail_has_no_stages_anywhere(make_watching):
    telemetry, known = make_watching(baseline_rate=0.1, detail="basic"), Known()
    for _ in range(300):
        evaluate(telemetry, known)
    assert not telemetry.points("fhirpath.stage.duration")
    assert total(telemetry, "fhirpath.evaluation.duration") == 300
    assert {span.name for span in telemetry.exporter.get_finished_spans()} == {"fhirpath evaluate"}
    assert not [name for root in roots(telemetry) for name in root.attributes if "fhirpath.stage" in name]
    assert telemetry.counts("fhirpath.telemetry.evaluations") == {("basic",): 300}


def test_what_was_not_expected_is_judged_by_itself(make_watching):
    telemetry = make_watching(baseline_rate=0.0)
    for _ in range(20):
        evaluation = telemetry.recorder.begin()
        evaluation.template = template_from("a")
        telemetry.recorder.finish(evaluation)
    assert not telemetry.recorder.watches
    assert total(telemetry, "fhirpath.evaluation.duration") == 20


def test_the_share_at_each_level_and_the_interval_are_exported(make_watching):
    telemetry, known = make_watching(baseline_rate=0.0), Known()
    for _ in range(99):
        evaluate(telemetry, known)
    evaluation = telemetry.recorder.begin()
    evaluation.detail = semconv.OPERATOR_DETAIL
    telemetry.recorder.expect(evaluation)
    evaluation.detail = semconv.OPERATOR_DETAIL
    telemetry.recorder.finish(evaluation)
    intervals = telemetry.counts("fhirpath.telemetry.detail.interval")
    shares = telemetry.counts("fhirpath.telemetry.evaluations")
    assert sum(shares.values()) == 100
    assert intervals[(semconv.COUNTED,)] == 1.0
    assert next(iter(telemetry.points("fhirpath.telemetry.overhead.ratio"))).value > 0


def test_an_unpaid_draw_stands_for_nobody_where_the_evaluation_then_fails(make_watching):
    telemetry, known = make_watching(baseline_rate=0.1), Known()
    telemetry.recorder.finish(begun(telemetry, known))
    telemetry.recorder._governor.affords_trace = lambda: False
    for watch in telemetry.recorder.watches:
        watch._affords = lambda: False
    for number in range(4_000):
        telemetry.recorder.finish(begun(telemetry, known), "Oops" if number % 2 else None)
    telemetry.points("fhirpath.evaluation.duration")
    unpaid = telemetry.recorder._ordinary._unjudged[semconv.BASELINE]
    assert unpaid == pytest.approx(2_000, rel=0.25)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_was_suppressed_in_a_parent_is_not_told_by_its_children(make_watching):
    telemetry = make_watching(1.0)
    sampler, reasons = telemetry.recorder._judge.decide, telemetry.recorder._ordinary
    sampler._suppressed[semconv.ERROR] = 7.0
    reasons.suppressed(semconv.SLOW, 5)
    child = os.fork()
    if child == 0:
        os._exit(int(sampler._suppressed[semconv.ERROR] + reasons._unjudged[semconv.SLOW]))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert reasons._unjudged[semconv.SLOW] == 5


def test_switched_off_while_one_is_under_way_nothing_stays_active(make_watching):
    telemetry, known = make_watching(), Known()
    for switched in range(6):
        evaluation = telemetry.recorder.begin()
        telemetry.recorder.set_detail("off")
        assert telemetry.recorder.finish(evaluation, "Oops").reason == semconv.SWITCHED_OFF
        telemetry.recorder.set_detail("auto")
        for _ in range(150 * switched):
            evaluate(telemetry, known)
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 0}
    assert not telemetry.points("fhirpath.telemetry.dropped")
    assert total(telemetry, "fhirpath.evaluation.duration") == 150 * 15


def test_what_a_finalizer_ends_is_judged_when_the_next_one_begins(make_watching):
    telemetry = make_watching()
    evaluation = telemetry.recorder.begin()
    telemetry.recorder.finish_later(evaluation)
    assert evaluation.outcome is None
    telemetry.recorder.begin()
    assert evaluation.outcome is not None
    telemetry.recorder.finish_later(telemetry.recorder.begin())
    assert total(telemetry, "fhirpath.evaluation.duration") == 2


def test_a_provider_that_raises_is_not_the_host_s_problem(make_watching, caplog):
    telemetry = make_watching()

    def fail():
        raise RuntimeError("CANARY")

    telemetry.recorder.recording = False
    telemetry.recorder._listen = fail
    assert telemetry.recorder.finish(telemetry.recorder.begin()) is not None
    telemetry.recorder.set_detail("stages")
    assert not telemetry.recorder.is_recording()
    assert "CANARY" not in caplog.text


def test_where_nothing_has_to_be_known_before_it_is_enough_to_note_what_is_evaluated(make_watching):
    telemetry, known = make_watching(baseline_rate=0.05), Known()
    for _ in range(300):
        evaluate(telemetry, known)
    assert asks_nothing(known)
    for number in range(2_000):
        evaluation = telemetry.recorder.begin()
        evaluation.template = template_from("a")
        evaluation.cache_hit = evaluation.compiled_before = True
        evaluation.unexpected = known
        evaluation.start_ns -= 1_000_000
        telemetry.recorder.finish(evaluation, "Oops" if number % 100 == 50 else None)
    assert total(telemetry, "fhirpath.evaluation.duration") == 2_300
    traces = telemetry.counts("fhirpath.telemetry.traces")
    assert sum(traces.values()) == 2_300
    assert traces["kept", "error"] == 20
    assert traces["kept", "baseline"] == pytest.approx(2_300 * 0.05, rel=0.35)
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 0}


def test_one_whose_operators_are_due_is_asked_before_it_runs(make_watching):
    telemetry, known = make_watching(baseline_rate=0.0), Known()
    for _ in range(300):
        evaluate(telemetry, known, sql=False)
    assert not asks_nothing(known)  # Nothing costs anything here, so that each one gets its operators.
    watch = known.last[1]
    watch.set_detail("stages", "operators", 500, 1)
    asked = 0
    for number in range(500):
        if not asks_nothing(known):
            asked += 1
            assert number > 180
        assert watch.next_turn().detailed == (number == 499)
    assert 64 <= asked <= 192


def test_a_turn_that_comes_too_late_leaves_an_evaluation_without_operators(make_watching):
    telemetry, known = make_watching(baseline_rate=0.0), Known()
    for _ in range(300):
        evaluate(telemetry, known, sql=False)
    before = telemetry.counts("fhirpath.telemetry.evaluations")
    known.last[1].set_detail("stages", "operators", 1, 1)
    evaluation = telemetry.recorder.begin()
    evaluation.template, evaluation.unexpected = template_from("a"), known
    telemetry.recorder.finish(evaluation)
    after = telemetry.counts("fhirpath.telemetry.evaluations")
    assert after["operators",] == before["operators",]
    assert after["stages",] == before["stages",] + 1


def test_recorders_that_share_what_is_compiled_count_apart(make_watching):
    one, other, known = make_watching(baseline_rate=0.0), make_watching(baseline_rate=0.0), Known()
    for _ in range(150):
        evaluate(one, known)
        evaluate(other, known)
    for telemetry in (one, other):
        assert total(telemetry, "fhirpath.evaluation.duration") == 150


def begun(telemetry, known, hit=True):
    evaluation = telemetry.recorder.begin()
    evaluation.template = template_from("a")
    evaluation.execution_mode, evaluation.cache_hit, evaluation.compiled_before = semconv.PUSHDOWN, hit, hit
    telemetry.recorder.expect(evaluation, known)
    evaluation.stages += [("parse", 0, 500), ("sql", 0, 1_000)]
    evaluation.result_count, evaluation.consumer_ns, evaluation.sql_active_ns = 2, 0, 1_000
    return evaluation


@pytest.mark.parametrize(
    ("changes", "stages", "results"),
    [
        ({"consumer_ns": None}, {"parse": 1, "sql": 1}, 1),
        ({"sql_active_ns": None}, {"parse": 1, "sql": 1}, 1),
        ({"result_count": None}, {"parse": 1, "sql": 1}, 0),
        ({"stages": [("parse", 0, 500)]}, {"parse": 1}, 1),
        (
            {"stages": [("parse", 0, 500), ("collection", 0, 1), ("sql", 0, 9)]},
            {"parse": 1, "collection": 1, "sql": 1},
            1,
        ),
    ],
)
def test_one_with_other_notes_than_those_before_it_is_counted_all_the_same(
    make_watching, changes, stages, results
):
    telemetry, known = make_watching(baseline_rate=0.0), Known()
    for _ in range(300):
        telemetry.recorder.finish(begun(telemetry, known))
    evaluation = begun(telemetry, known)
    for name, value in changes.items():
        setattr(evaluation, name, value)
    telemetry.recorder.finish(evaluation)
    assert total(telemetry, "fhirpath.evaluation.duration") == 301
    assert total(telemetry, "fhirpath.result.count") == 300 + results
    counted = {
        point.attributes["fhirpath.stage"]: point.count - 300
        for point in telemetry.points("fhirpath.stage.duration")
    }
    counted["collection"] = counted.get("collection", -300) + 300
    assert {stage: count for stage, count in counted.items() if count} == stages
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 0}


def test_one_whose_notes_cannot_be_left_the_quick_way_is_counted_another_way(make_watching):
    telemetry, known = make_watching(baseline_rate=0.0), Known()
    for _ in range(300):
        telemetry.recorder.finish(begun(telemetry, known))

    def fail(_):
        raise RuntimeError("CANARY")

    [watch] = telemetry.recorder.watches
    evaluation = begun(telemetry, known)
    watch.quick = (*watch.quick[:2], fail, watch.quick[3])
    assert telemetry.recorder.finish(evaluation).reason == semconv.NOT_SELECTED
    assert total(telemetry, "fhirpath.evaluation.duration") == 301


def test_what_a_forked_child_has_inherited_is_not_counted_as_under_way_there(make_watching):
    telemetry, known = make_watching(baseline_rate=0.0), Known()
    for _ in range(300):
        telemetry.recorder.finish(begun(telemetry, known))
    inherited, forgotten = begun(telemetry, known), begun(telemetry, known)
    telemetry.recorder._instruments._in_child()
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 0}
    own = begun(telemetry, known)
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 1}
    telemetry.recorder.finish(inherited)
    del forgotten
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 1}
    telemetry.recorder.finish(own)
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 0}
    assert not telemetry.points("fhirpath.telemetry.dropped")


def test_callers_of_several_kinds_find_their_own_watch(make_watching):
    telemetry, known = make_watching(baseline_rate=0.0), Known()
    flags = TraceFlags(TraceFlags.DEFAULT)
    unsampled = NonRecordingSpan(SpanContext(7, 3, is_remote=True, trace_flags=flags))
    for _ in range(150):
        evaluate(telemetry, known)
        with trace.use_span(unsampled):
            evaluate(telemetry, known)
        with telemetry.tracer_provider.get_tracer("host").start_as_current_span("request"):
            evaluate(telemetry, known)
    assert len(telemetry.recorder.watches) == 3
    traces = telemetry.counts("fhirpath.telemetry.traces")
    assert traces["dropped", "unsampled_parent"] == 150
    assert sum(traces.values()) == 450


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("sql", [True, False])
def test_what_waits_is_bounded_however_often_evaluations_are_judged(make_watching, rate, sql):
    telemetry, known = make_watching(baseline_rate=rate), Known()
    most = 0
    for _ in range(3_000):
        evaluation = telemetry.recorder.begin()
        evaluation.template = template_from("a")
        evaluation.execution_mode = semconv.PUSHDOWN if sql else semconv.IN_MEMORY
        evaluation.cache_hit = evaluation.compiled_before = True
        if known.last[1] is not None and asks_nothing(known):
            evaluation.unexpected = known
        else:
            telemetry.recorder.expect(evaluation, known)
        evaluation.stages += [("parse", 0, 500), ("sql", 0, 1_000)]
        evaluation.result_count, evaluation.consumer_ns, evaluation.sql_active_ns = 2, 0, 1_000
        telemetry.recorder.finish(evaluation)
        most = max(most, *(watch.waiting() for watch in telemetry.recorder.watches), 0)
    assert 100 < most < 512 or rate == 0.5
    assert most < 512
    assert total(telemetry, "fhirpath.evaluation.duration") == 3_000


def test_one_that_was_ended_while_recording_was_off_is_not_counted_when_it_is_ended_again(make_watching):
    telemetry, known = make_watching(baseline_rate=0.0), Known()
    for _ in range(300):
        telemetry.recorder.finish(begun(telemetry, known))
    evaluation = begun(telemetry, known)
    telemetry.recorder.set_detail("off")
    assert telemetry.recorder.finish(evaluation).reason == semconv.SWITCHED_OFF
    telemetry.recorder.set_detail("auto")
    assert telemetry.recorder.finish(evaluation).reason == semconv.SWITCHED_OFF
    assert total(telemetry, "fhirpath.evaluation.duration") == 300
    running = begun(telemetry, known)
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 1}
    telemetry.recorder.finish(running)


def test_one_that_began_while_recording_was_off_is_not_counted(make_watching):
    telemetry, known = make_watching(baseline_rate=0.0), Known()
    with telemetry.tracer_provider.get_tracer("host").start_as_current_span("request"):
        for _ in range(300):
            telemetry.recorder.finish(begun(telemetry, known))
    assert known.last[0]() is None, "the request's context is gone"
    telemetry.recorder.set_detail("off")
    evaluation = begun(telemetry, known)
    evaluation.unexpected = known
    telemetry.recorder.set_detail("auto")
    telemetry.recorder.finish(evaluation)
    running = begun(telemetry, known)
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 1}
    telemetry.recorder.finish(running)


def test_a_result_count_that_is_no_integer_costs_nothing(make_watching):
    telemetry, known = make_watching(baseline_rate=0.0), Known()
    for _ in range(300):
        telemetry.recorder.finish(begun(telemetry, known))
    evaluation = begun(telemetry, known)
    evaluation.result_count = 2.5
    telemetry.recorder.finish(evaluation)
    assert total(telemetry, "fhirpath.evaluation.duration") == 301
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 0}
    assert not telemetry.points("fhirpath.telemetry.dropped")


def test_stages_that_run_twice_are_counted(make_watching):
    telemetry, known = make_watching(baseline_rate=0.0), Known()
    for _ in range(300):
        evaluation = begun(telemetry, known)
        evaluation.stages.insert(1, ("parse", 500, 700))
        telemetry.recorder.finish(evaluation)
    assert {point.count for point in telemetry.points("fhirpath.stage.duration")} == {300}


def test_what_has_ended_while_metrics_are_collected_is_not_under_way(make_watching):
    telemetry, known = make_watching(baseline_rate=0.0), Known()
    for _ in range(50):
        telemetry.recorder.finish(begun(telemetry, known))
    instruments = telemetry.recorder._instruments
    fold = instruments._fold

    def fold_while_others_evaluate():
        fold()
        for _ in range(40):
            telemetry.recorder.finish(begun(telemetry, known))

    instruments._fold = fold_while_others_evaluate
    [observation] = instruments._observe_active(None)
    assert observation.value == 0


@pytest.mark.parametrize("learns", [False, True])
def test_an_inherited_one_is_not_counted_in_a_child_that_has_evaluated_meanwhile(make_watching, learns):
    telemetry, known = make_watching(baseline_rate=0.0), Known()
    for _ in range(300):
        telemetry.recorder.finish(begun(telemetry, known))
    inherited = begun(telemetry, known)
    telemetry.recorder._instruments._in_child()
    for _ in range(600 if learns else 1):
        telemetry.recorder.finish(begun(telemetry, known))
    telemetry.recorder.finish(inherited)
    own = begun(telemetry, known)
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 1}
    telemetry.recorder.finish(own)


def test_a_draw_that_falls_on_one_in_turn_is_left_to_the_sampler(make_watching):
    telemetry, known = make_watching(1.0, baseline_rate=0.5, detail="operators"), Known()
    evaluate(telemetry, known)
    evaluate(telemetry, known)
    for watch in telemetry.recorder.watches:
        watch._affords = lambda: False
    for _ in range(500):
        evaluate(telemetry, known)
    suppressed = telemetry.counts("fhirpath.telemetry.traces").get(("suppressed", "baseline"), 0)
    assert suppressed == pytest.approx(250, rel=0.3)


def test_adding_up_is_not_begun_again_within_itself(make_watching):
    telemetry, known = make_watching(baseline_rate=0.0), Known()
    for _ in range(100):
        telemetry.recorder.finish(begun(telemetry, known))
    [watch] = telemetry.recorder.watches
    instruments = telemetry.recorder._instruments
    add = instruments._add_numbers

    def interrupted(one):
        instruments.add_up(one)
        add(one)

    instruments._add_numbers = interrupted
    instruments.add_up(watch)
    assert not watch.waiting()
    assert total(telemetry, "fhirpath.evaluation.duration") == 100

"""Metrics count every evaluation, whatever becomes of its trace, within a bounded number of series."""

from __future__ import annotations

import itertools
import os
import sys
import threading

import pytest

from fhirpath_otel import semconv
from fhirpath_otel.telemetry import folding, metrics, routes
from fhirpath_otel.telemetry.database_memory import DatabaseMemory, InUse
from fhirpath_otel.telemetry.finding import Finding
from fhirpath_otel.telemetry.operators import OperatorTime
from fhirpath_otel.telemetry.recorder import Decision
from fhirpath_otel.telemetry.redaction import Disclosure, Template, template_from

FINDING = Finding("n-plus-one", "warning", "sql", 0, 12, {}, 0.1, "Evaluate once.")
DROP = Decision(False, "not_selected")


def finish(telemetry, error_type=None, stages=(), **facts):
    evaluation = telemetry.recorder.begin()
    evaluation.stages.extend(stages)
    for name, value in facts.items():
        setattr(evaluation, name, value)
    return telemetry.recorder.finish(evaluation, error_type)


def test_kept_and_dropped_evaluations_are_counted_alike(make_telemetry):
    kept = iter([True, False, False])
    telemetry = make_telemetry(lambda _: Decision(True, "slow") if next(kept) else DROP)
    for _ in range(3):
        finish(
            telemetry, execution_mode="pushdown", engine_version="1", template=template_from("Patient.name")
        )
    [point] = telemetry.points("fhirpath.evaluation.duration")
    assert point.count == 3
    assert point.attributes == {
        "fhirpath.engine.name": "fhirpath_otel",
        "fhirpath.engine.version": "1",
        "fhirpath.execution.mode": "pushdown",
        "fhirpath.expression.hash": template_from("Patient.name").hash,
    }
    assert telemetry.counts("fhirpath.telemetry.traces") == {
        ("kept", "slow"): 1,
        ("dropped", "not_selected"): 2,
    }


def test_durations_come_in_seconds_and_buckets_from_10_microseconds_to_100_seconds(telemetry):
    finish(telemetry, stages=[("parse", 0, 2_000), ("sql", 2_000, 3_002_000)], db_system="duckdb")
    points = {
        point.attributes["fhirpath.stage"]: point for point in telemetry.points("fhirpath.stage.duration")
    }
    assert points["parse"].sum == 2e-6
    assert points["sql"].sum == pytest.approx(3e-3)
    assert (points["sql"].explicit_bounds[0], points["sql"].explicit_bounds[-1]) == (1e-5, 100.0)
    assert points["sql"].bucket_counts[points["sql"].explicit_bounds.index(5e-3)] == 1


def test_time_of_the_consumer_is_in_no_metric(telemetry):
    finish(telemetry, stages=[("sql", 0, 5 * 10**9)], db_system="duckdb", sql_active_ns=10**6)
    assert [point.sum for point in telemetry.points("fhirpath.stage.duration")] == [1e-3]
    assert [point.sum for point in telemetry.points("db.client.operation.duration")] == [1e-3]


def test_the_database_operation_is_measured_by_the_stable_conventions(telemetry):
    facts = {"db_system": "duckdb", "statement_summary": "SELECT Patient"}
    finish(telemetry, stages=[("sql", 0, 1)], **facts)
    finish(telemetry, "database", stages=[("sql", 0, 1)], **facts)
    finish(telemetry, "syntax", stages=[("parse", 0, 1)])
    common = {"db.system.name": "duckdb", "db.operation.name": "SELECT", "db.collection.name": "Patient"}
    points = telemetry.points("db.client.operation.duration")
    assert [dict(point.attributes) for point in points] == [common, {**common, "error.type": "database"}]


def test_cache_requests_and_results_are_counted(telemetry):
    for hit in (True, False, True):
        finish(telemetry, cache_hit=hit, result_count=20, execution_mode="pushdown")
    finish(telemetry)
    assert telemetry.counts("fhirpath.parser.cache.requests") == {("hit",): 2, ("miss",): 1}
    [point] = telemetry.points("fhirpath.result.count")
    assert (point.count, point.sum, dict(point.attributes)) == (
        3,
        60,
        {"fhirpath.execution.mode": "pushdown"},
    )


def test_active_evaluations_are_those_between_begin_and_finish(telemetry):
    first, second = telemetry.recorder.begin(), telemetry.recorder.begin()
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 2}
    for evaluation in (first, first, second):
        telemetry.recorder.finish(evaluation)
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 0}


def test_evaluations_that_are_never_finished_are_active_no_more_once_nobody_knows_them(telemetry):
    kept = [telemetry.recorder.begin() for _ in range(5_000)]
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 5_000}
    telemetry.recorder.finish(kept.pop())
    assert telemetry.counts(semconv.LOST.name) == {}
    kept.clear()
    telemetry.points("fhirpath.evaluation.active")
    assert telemetry.counts("fhirpath.evaluation.active") == {(): 0}
    assert telemetry.counts(semconv.LOST.name) == {("evaluation", "not_finished"): 4_999}
    assert not telemetry.recorder.under_way._forgotten


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_what_is_active_in_a_parent_is_not_in_its_forked_child(telemetry):
    evaluation = telemetry.recorder.begin()
    child = os.fork()
    if child == 0:
        (point,) = telemetry.points(semconv.EVALUATION_ACTIVE.name)
        os._exit(point.value)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    (point,) = telemetry.points(semconv.EVALUATION_ACTIVE.name)
    assert (point.value, evaluation.outcome) == (1, None)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_what_a_child_inherits_is_no_loss_of_its_own_and_ends_none_of_its_own(telemetry):
    forgotten, finished = telemetry.recorder.begin(), telemetry.recorder.begin()
    child = os.fork()
    if child == 0:
        own = telemetry.recorder.begin()
        del forgotten
        telemetry.recorder.finish(finished)
        telemetry.points(semconv.EVALUATION_ACTIVE.name)
        (point,) = telemetry.points(semconv.EVALUATION_ACTIVE.name)
        right = point.value == 1 and not telemetry.counts(semconv.LOST.name) and own.outcome is None
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert forgotten.outcome is None


def test_beyond_the_cap_expressions_are_called_other(make_telemetry):
    telemetry = make_telemetry(lambda _: DROP, max_expressions=2)
    for text in ("a", "b", "c", "d", "a"):
        finish(telemetry, template=template_from(text))
    counts = {
        point.attributes["fhirpath.expression.hash"]: point.count
        for point in telemetry.points("fhirpath.evaluation.duration")
    }
    assert counts == {template_from("a").hash: 2, template_from("b").hash: 1, "other": 2}


def test_texts_that_cannot_be_parsed_share_one_series(make_telemetry):
    telemetry = make_telemetry(lambda _: DROP)
    for number in range(300):
        finish(telemetry, "syntax", expression=f"Patient..{number}")
    [point] = telemetry.points("fhirpath.evaluation.duration")
    assert (point.attributes["fhirpath.expression.hash"], point.count) == ("unparsable", 300)


def test_the_series_of_a_process_are_bounded(make_telemetry, monkeypatch):
    monkeypatch.setattr(routes, "MAX_SERIES", 10)
    telemetry = make_telemetry(lambda _: DROP, max_expressions=100)
    for number in range(100):
        finish(telemetry, template=template_from(str(number)))
    points = telemetry.points("fhirpath.evaluation.duration")
    assert len(points) == 11
    assert sum(point.count for point in points) == 100


def test_expression_info_tells_the_template_of_a_hash(make_telemetry):
    telemetry = make_telemetry(lambda _: DROP)
    finish(telemetry, template=Template("Patient.name", "0123456789abcdef"))
    finish(telemetry, "syntax", expression="Patient..")
    [point] = telemetry.points("fhirpath.expression.info")
    assert dict(point.attributes) == {
        "fhirpath.expression.hash": "0123456789abcdef",
        "fhirpath.expression.template": "Patient.name",
    }


def test_with_hashes_only_no_metric_shows_a_template(make_telemetry):
    telemetry = make_telemetry(lambda _: DROP, disclosure=Disclosure("hash"))
    finish(telemetry, template=Template("Patient.name", "0123456789abcdef"))
    assert not telemetry.points("fhirpath.expression.info")


def test_exemplars_point_at_kept_traces_only(make_telemetry):
    kept = iter([True, False])
    telemetry = make_telemetry(lambda _: Decision(True, "slow") if next(kept) else DROP)
    with telemetry.tracer_provider.get_tracer("host").start_as_current_span("request"):
        ids = [finish(telemetry, result_count=1, execution_mode="pushdown").trace_id for _ in range(2)]
    [point] = telemetry.points("fhirpath.evaluation.duration")
    assert point.count == 2
    assert [exemplar.trace_id for exemplar in point.exemplars] == [ids[0]]


def test_losses_are_counted_by_what_and_why(telemetry):
    telemetry.recorder.lost("span", "file_error", 3)
    assert telemetry.counts("fhirpath.telemetry.dropped") == {("span", "file_error"): 3}


def test_findings_are_counted_whatever_becomes_of_the_trace(make_telemetry):
    telemetry = make_telemetry(lambda _: DROP, analyse=lambda _: (FINDING, FINDING))
    finish(telemetry)
    assert telemetry.counts("fhirpath.bottleneck.findings") == {("n-plus-one", "warning", "sql"): 2}


def test_every_metric_is_emitted_with_the_units_of_the_table(make_telemetry):
    telemetry = make_telemetry(watches_memory=True, analyse=lambda _: (FINDING,))
    finish(
        telemetry,
        stages=[("sql", 0, 1)],
        db_system="duckdb",
        cache_hit=True,
        result_count=1,
        execution_mode="pushdown",
        template=template_from("Patient"),
        rss_start=1,
        rss_peak=2,
        operators=(OperatorTime("where", 0, 5, 1, 1, 1, 1),),
    )
    database = DatabaseMemory("duckdb", 1, lambda: InUse(1, 1))
    telemetry.recorder.databases.add(database)
    telemetry.recorder.lost("span", "file_error")
    [scope] = telemetry.reader.get_metrics_data().resource_metrics[0].scope_metrics
    emitted = {metric.name: metric.unit for metric in scope.metrics}
    assert emitted == {metric.name: metric.unit for metric in semconv.METRICS}
    assert scope.schema_url == semconv.SCHEMA_URL


def fill(telemetry, number, evaluations=1):
    for _ in range(evaluations):
        facts = {"db_system": "duckdb", "statement_summary": "SELECT Patient", "execution_mode": "pushdown"}
        stages = [(stage, 0, 1_000 * (number + 1)) for stage in ("parse", "type_check", "collection", "sql")]
        finish(
            telemetry,
            stages=stages,
            cache_hit=True,
            result_count=number,
            template=template_from(str(number)),
            **facts,
        )


def total(telemetry, name):
    return sum(point.count for point in telemetry.points(name))


@pytest.mark.parametrize("folds", [True, False])
def test_no_evaluation_of_any_thread_is_missed_or_counted_twice(make_telemetry, monkeypatch, folds):
    if not folds:
        monkeypatch.setattr(folding, "fold_places", lambda *_: folding.Places())
    kept = itertools.count()
    telemetry = make_telemetry(lambda _: Decision(True, "slow") if next(kept) % 50 == 0 else DROP)
    threads, evaluations = 8, 400
    done = threading.Event()
    seen = []

    def collect():
        while not done.is_set():
            seen.append(total(telemetry, "fhirpath.evaluation.duration"))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        collector = threading.Thread(target=collect)
        workers = [
            threading.Thread(target=fill, args=(telemetry, number, evaluations)) for number in range(threads)
        ]
        for thread in (collector, *workers):
            thread.start()
        for thread in workers:
            thread.join()
    finally:
        done.set()
        collector.join()
        sys.setswitchinterval(interval)
    assert seen == sorted(seen)
    everything = threads * evaluations
    points = {
        point.attributes["fhirpath.expression.hash"]: point
        for point in telemetry.points("fhirpath.evaluation.duration")
    }
    assert {key: point.count for key, point in points.items()} == {
        template_from(str(number)).hash: evaluations for number in range(threads)
    }
    stages = telemetry.points("fhirpath.stage.duration")
    expected = sum((number + 1) * 1e-6 * evaluations for number in range(threads))
    assert [point.sum for point in stages] == [pytest.approx(expected)] * 4
    assert {(point.min, point.max) for point in stages} == {(1e-6, threads * 1e-6)}
    assert total(telemetry, "fhirpath.result.count") == everything
    assert total(telemetry, "db.client.operation.duration") == everything
    assert telemetry.counts("fhirpath.parser.cache.requests") == {("hit",): everything}
    assert sum(telemetry.counts("fhirpath.telemetry.traces").values()) == everything


def test_threads_that_ended_are_counted(make_telemetry):
    telemetry = make_telemetry(lambda _: DROP)
    for number in range(3):
        thread = threading.Thread(target=fill, args=(telemetry, number))
        thread.start()
        thread.join()
    assert total(telemetry, "fhirpath.evaluation.duration") == 3


def test_what_waits_is_bounded(make_telemetry, monkeypatch):
    monkeypatch.setattr(metrics, "MAX_QUEUE", 40)
    telemetry = make_telemetry(lambda _: DROP)
    instruments = telemetry.recorder._instruments
    fill(telemetry, 0, metrics.BATCH - 1)
    assert len(instruments._queue) == (metrics.BATCH - 1 if instruments._histograms[0].folds else 0)
    with instruments._lock:
        thread = threading.Thread(target=fill, args=(telemetry, 0, 100))
        thread.start()
        thread.join(0.05)
        assert len(instruments._queue) <= 40
    thread.join()
    assert len(instruments._queue) < metrics.BATCH
    assert total(telemetry, "fhirpath.evaluation.duration") == metrics.BATCH - 1 + 100


def test_an_evaluation_that_ends_while_its_thread_adds_up_is_counted(make_telemetry):
    telemetry = make_telemetry(lambda _: DROP)
    with telemetry.recorder._instruments._lock:
        fill(telemetry, 0, 3 * metrics.BATCH)
    assert total(telemetry, "fhirpath.evaluation.duration") == 3 * metrics.BATCH


def test_one_that_cannot_be_counted_costs_no_other(make_telemetry):
    telemetry = make_telemetry(lambda _: DROP)
    finish(telemetry, execution_mode=["no", "key"])
    fill(telemetry, 0, 3)
    assert total(telemetry, "fhirpath.evaluation.duration") == 3
    assert telemetry.counts("fhirpath.telemetry.dropped") == {("evaluation", "internal_error"): 1}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_starts_with_nothing_and_can_count(make_telemetry):
    telemetry = make_telemetry(lambda _: DROP)
    fill(telemetry, 0, metrics.BATCH + 3)  # some of them added up, some in the queue
    child = os.fork()
    if child == 0:
        before = total(telemetry, "fhirpath.evaluation.duration")
        fill(telemetry, 1, 5)
        os._exit(10 * before + total(telemetry, "fhirpath.evaluation.duration"))
    folds = telemetry.recorder._instruments._histograms[0].folds
    expected = 5 if folds else None  # without folding the child has what the SDK had in the parent
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert expected in {None, code}
    assert total(telemetry, "fhirpath.evaluation.duration") == metrics.BATCH + 3


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_waits_for_a_thread_that_folds(make_telemetry):
    telemetry = make_telemetry(lambda _: DROP)
    fill(telemetry, 0)
    holding, order = threading.Event(), []

    def fold():
        with telemetry.recorder._instruments._lock:
            holding.set()
            forked.wait(0.05)
            order.append("folded")

    forked = threading.Event()
    thread = threading.Thread(target=fold)
    thread.start()
    holding.wait()
    child = os.fork()
    if child == 0:
        fill(telemetry, 1, 2 * metrics.BATCH)
        os._exit(0)
    order.append("forked")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join()
    assert order == ["folded", "forked"]


def test_a_process_makes_at_most_2000_series(make_telemetry):
    telemetry = make_telemetry(
        lambda _: DROP, max_expressions=500, watches_memory=True, disclosure=Disclosure(is_operator=bool)
    )
    reasons = [f"reason{number}" for number in range(60)]
    telemetry.recorder._judge.decide = lambda evaluation: Decision(
        False, reasons[evaluation.result_count % 60]
    )
    for number in range(6_000):
        finish(
            telemetry,
            f"Error{number % 300}" if number % 3 else None,
            stages=[("sql", 0, 1)],
            engine_name=f"engine{number % 40}",
            execution_mode=f"mode{number % 35}",
            db_system=f"system{number % 7}",
            statement_summary="SELECT Patient",
            result_count=number,
            cache_hit=bool(number % 2),
            template=template_from(str(number)),
            operators=(OperatorTime(f"operator{number % 150}", 0, 5, 1, 1, 1, 1),),
        )
    telemetry.recorder.lost("span", "file_error")
    [scope] = telemetry.reader.get_metrics_data().resource_metrics[0].scope_metrics
    points = [point for metric in scope.metrics for point in metric.data.data_points]
    assert 1_500 < len(points) <= 2_000
    assert not [point for point in points if "otel.metric.overflow" in point.attributes]
    for name in ("fhirpath.evaluation.duration", "db.client.operation.duration", "fhirpath.result.count"):
        assert total(telemetry, name) == 6_000
    assert sum(telemetry.counts("fhirpath.telemetry.traces").values()) == 6_000


def test_what_an_sdk_loses_at_folding_is_counted(make_telemetry, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    telemetry = make_telemetry(lambda _: DROP)
    fill(telemetry, 0, 3)
    folds = telemetry.recorder._instruments._histograms[0].folds
    monkeypatch.setattr(folding, "fold", fail)
    telemetry.points("fhirpath.evaluation.duration")
    fill(telemetry, 0, 2)
    lost = {("evaluation", "internal_error"): 3} if folds else {}
    assert telemetry.counts("fhirpath.telemetry.dropped") == lost
    assert total(telemetry, "fhirpath.evaluation.duration") == (2 if folds else 5)
    assert telemetry.counts("fhirpath.telemetry.traces") == {("dropped", "not_selected"): 5}

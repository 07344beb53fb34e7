"""Metrics and attributes of memory, as an SDK gets them."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from fhirpath_otel.telemetry.database_memory import DatabaseMemory, InUse
from fhirpath_otel.telemetry.recorder import Decision, Recorder
from fhirpath_otel.telemetry.redaction import template_from

MIB = 2**20
MODULE = "opentelemetry.instrumentation.system_metrics"


def finish(telemetry, seconds=0.06, watched=True, **facts):
    """An evaluation that lasted so long by its own notes."""
    evaluation = telemetry.recorder.begin()
    evaluation.template = template_from("Patient.name")
    evaluation.execution_mode = "pushdown"
    if watched:
        telemetry.recorder.expect(evaluation)
    evaluation.start_ns -= round(seconds * 1e9)
    for name, value in facts.items():
        setattr(evaluation, name, value)
    telemetry.recorder.finish(evaluation)
    return evaluation


@pytest.fixture
def telemetry(make_telemetry):
    made = make_telemetry(watches_memory=True)
    yield made
    made.recorder.memory.close()


def test_the_root_span_of_a_long_evaluation_says_what_memory_it_took(telemetry):
    finish(telemetry)
    finish(telemetry)
    first, second = telemetry.exporter.get_finished_spans()
    assert first.attributes["fhirpath.memory.rss.peak"] > MIB
    assert isinstance(first.attributes["fhirpath.memory.rss.delta"], int)
    assert "fhirpath.memory.rss.growth" not in first.attributes
    deltas = [span.attributes["fhirpath.memory.rss.delta"] for span in (first, second)]
    assert second.attributes["fhirpath.memory.rss.growth"] == sum(deltas)


def test_that_of_a_short_one_says_nothing(telemetry):
    finish(telemetry, 0.01)
    [span] = telemetry.exporter.get_finished_spans()
    assert not [name for name in span.attributes if "memory" in name or "temp" in name.split(".")]


def test_without_an_sdk_nothing_is_watched():
    recorder = Recorder(lambda _: Decision(True, "slow"))
    evaluation = recorder.begin()
    evaluation.template = template_from("Patient.name")
    recorder.expect(evaluation)
    assert evaluation.memory_track is None


def test_the_figures_of_the_database_are_on_the_root_span(telemetry):
    telemetry.recorder.memory.end = lambda _: None  # The figures are the test's.
    finish(telemetry, watched=False, database_memory_peak=5, database_temp_peak=0)
    [span] = telemetry.exporter.get_finished_spans()
    assert span.attributes["fhirpath.database.memory.peak"] == 5
    assert span.attributes["fhirpath.database.temp.peak"] == 0


def test_the_rise_is_a_histogram_of_long_evaluations_kept_or_not(make_telemetry):
    kept = iter([True, False, False])
    telemetry = make_telemetry(lambda _: Decision(next(kept), "slow"), watches_memory=True)
    telemetry.recorder.memory.end = lambda _: None  # The figures are the test's.
    finish(telemetry, watched=False, rss_start=10 * MIB, rss_peak=13 * MIB)
    finish(telemetry, watched=False, rss_start=10 * MIB, rss_peak=10 * MIB)
    finish(telemetry, watched=False)
    [point] = telemetry.points("fhirpath.evaluation.memory.rise")
    assert (point.count, point.sum, point.min) == (2, 3 * MIB, 0)
    assert point.attributes == {"fhirpath.execution.mode": "pushdown"}
    assert point.explicit_bounds[:3] == (0, MIB, 4 * MIB)
    [root] = telemetry.exporter.get_finished_spans()
    assert [exemplar.trace_id for exemplar in point.exemplars] == [root.context.trace_id]


def test_modes_make_no_more_series_than_there_are(telemetry):
    telemetry.recorder.memory.end = lambda _: None
    for mode in ("pushdown", "a", "b", None):
        finish(telemetry, watched=False, rss_start=1, rss_peak=2, execution_mode=mode)
    points = telemetry.points("fhirpath.evaluation.memory.rise")
    assert {point.attributes["fhirpath.execution.mode"]: point.count for point in points} == {
        "pushdown": 1,
        "other": 3,
    }


def test_the_size_of_the_process_is_collected(telemetry):
    [point] = telemetry.points("process.memory.usage")
    assert point.value > 10 * MIB
    assert point.attributes == {}


def test_without_a_present_size_there_is_no_gauge(telemetry, monkeypatch):
    monkeypatch.setattr(type(telemetry.recorder._judge.memory_metrics._resident), "only_peaks", True)
    assert telemetry.points("process.memory.usage") == []


@pytest.mark.parametrize(
    ("instrumented", "config", "ours"),
    [
        (True, {"process.memory.usage": None}, False),
        (True, {"system.cpu.time": []}, True),
        (False, {"process.memory.usage": None}, True),
        (None, None, True),
    ],
)
def test_it_is_silent_where_the_host_s_system_metrics_report_it(
    telemetry, monkeypatch, instrumented, config, ours
):
    class SystemMetricsInstrumentor:
        _instance = None
        _config = config
        is_instrumented_by_opentelemetry = instrumented

    if instrumented is not None:
        SystemMetricsInstrumentor._instance = SystemMetricsInstrumentor()
    module = ModuleType(MODULE)
    module.SystemMetricsInstrumentor = SystemMetricsInstrumentor
    monkeypatch.setitem(sys.modules, MODULE, module)
    assert bool(telemetry.points("process.memory.usage")) == ours


def test_the_real_instrumentation_is_recognised(telemetry):
    system_metrics = pytest.importorskip(MODULE, reason="contrib's system metrics are not installed")
    instrumentor = system_metrics.SystemMetricsInstrumentor()
    assert telemetry.points("process.memory.usage")
    instrumentor.instrument()
    try:
        assert not telemetry.points("process.memory.usage")
    finally:
        instrumentor.uninstrument()
    assert telemetry.points("process.memory.usage")


def test_what_databases_use_is_collected_with_one_question(telemetry):
    asked = []

    def read() -> InUse:
        asked.append(None)
        return InUse(7, 3)

    database = DatabaseMemory("duckdb", 1, read)
    telemetry.recorder.databases.add(database)
    assert telemetry.counts("fhirpath.database.memory.usage") == {("duckdb",): 7}
    assert telemetry.counts("fhirpath.database.temp.usage") == {("duckdb",): 3}
    assert len(asked) == 1


def test_without_databases_there_is_nothing_to_collect(telemetry):
    assert telemetry.points("fhirpath.database.memory.usage") == []
    assert telemetry.points("fhirpath.database.temp.usage") == []

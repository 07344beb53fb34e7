"""The memory of a long evaluation, as a user sees it: a large result, on a real database and a real clock."""

from __future__ import annotations

import json
import threading

import pytest

from fhirpath_otel.databases.duckdb import DuckDBDatabase
from fhirpath_otel.telemetry.memory_sampler import MemorySampler
from fhirpath_otel.telemetry.recorder import Decision, Recorder
from fhirpath_otel.telemetry.resident_memory import ResidentMemory

VALUE_BYTES = 500
COUNT = 40_000


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fhirpath-otel-memory"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """20 MB of names, the loading of which is no part of the tests."""
    folder = tmp_path_factory.mktemp("large")
    with (folder / "patients.ndjson").open("w") as file:
        for number in range(COUNT):
            name = [{"family": f"{number}-".ljust(VALUE_BYTES, "x")}]
            file.write(json.dumps({"resourceType": "Patient", "id": str(number), "name": name}) + "\n")
    with DuckDBDatabase(folder / "x.duckdb", Recorder(lambda _: Decision(False, "not_selected"))) as database:
        database.load(folder / "patients.ndjson")
    return folder


@pytest.fixture
def sdk():
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracer_provider = TracerProvider(shutdown_on_exit=False)
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    recorder = Recorder(
        lambda _: Decision(True, "slow"),
        tracer_provider=tracer_provider,
        meter_provider=MeterProvider([reader], shutdown_on_exit=False),
    )
    # 20 MB take longer than 5 ms on any machine.
    recorder.memory = MemorySampler(ResidentMemory(), interval=0.001, from_seconds=0.005)
    yield recorder, exporter, reader
    recorder.memory.close()


def roots(exporter):
    return [span for span in exporter.get_finished_spans() if span.name.startswith("fhirpath evaluate")]


def metrics(reader) -> dict[str, float]:
    return {
        metric.name: metric.data.data_points[0]
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


@pytest.mark.parametrize("mode", ["sql", "memory"])
def test_a_large_result_is_seen_in_its_evaluation(folder, sdk, mode):
    recorder, exporter, reader = sdk
    with DuckDBDatabase(folder / "x.duckdb", recorder, read_only=True) as database:
        assert threads() == []
        result = database.evaluate("Patient.name.family", mode=mode)
        assert len(threads()) == 1
        rows = result.fetchall()
        assert sum(len(value) for _, value in rows) >= COUNT * VALUE_BYTES
        found = metrics(reader)
    [root] = roots(exporter)
    size = COUNT * VALUE_BYTES
    assert root.attributes["fhirpath.memory.rss.delta"] > size / 2
    assert root.attributes["fhirpath.memory.rss.peak"] > size
    assert root.attributes["fhirpath.database.memory.peak"] > 0
    assert root.attributes["fhirpath.database.temp.peak"] == 0
    assert found["fhirpath.evaluation.memory.rise"].sum > size / 2
    assert found["process.memory.usage"].value > size
    assert found["fhirpath.database.memory.usage"].value > 0
    recorder.memory.close()
    assert threads() == []


def test_one_open_file_is_counted_once(folder, sdk):
    recorder, _, reader = sdk
    with DuckDBDatabase(folder / "x.duckdb", recorder, read_only=True) as database:
        one = metrics(reader)["fhirpath.database.memory.usage"].value
        with DuckDBDatabase(folder / "x.duckdb", recorder, read_only=True) as second:
            assert len(recorder.databases._known) == 2
            assert {item().instance for item in recorder.databases._known} == {database.memory.instance}
            assert second.memory.in_use(0).memory == pytest.approx(database.memory.in_use(0).memory)
            assert recorder.databases.totals()["duckdb"].memory == pytest.approx(one, rel=0.5)
    assert "fhirpath.database.memory.usage" not in metrics(reader)

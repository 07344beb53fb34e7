"""The memory of a long evaluation, as a user sees it: a large result, on a real database and a real clock."""

from __future__ import annotations

import json

import pytest

from fhirpath_otel.databases.duckdb import DuckDBDatabase
from fhirpath_otel.telemetry.recorder import Decision, Recorder

VALUE_BYTES = 500
COUNT = 40_000
SIZE = VALUE_BYTES * COUNT

# In a process of its own, whose heap has nothing that was freed and would be used again. The threshold is 5 ms and not
# 50, so that 20 MB take longer on any machine.
EVALUATE = """
import json, sys, threading
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from fhirpath_otel.databases.duckdb import DuckDBDatabase
from fhirpath_otel.telemetry.memory_sampler import MemorySampler
from fhirpath_otel.telemetry.recorder import Decision, Recorder
from fhirpath_otel.telemetry.resident_memory import ResidentMemory

def threads():
    return sum(thread.name == "fhirpath-otel-memory" for thread in threading.enumerate())

def collected():
    return {{
        metric.name: getattr(metric.data.data_points[0], "value", None) or metric.data.data_points[0].sum
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if "memory" in metric.name
    }}

exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
tracer_provider = TracerProvider(shutdown_on_exit=False)
tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
meter_provider = MeterProvider([reader], shutdown_on_exit=False)
recorder = Recorder(
    lambda _: Decision(True, "slow"), tracer_provider=tracer_provider, meter_provider=meter_provider
)
recorder.memory = recorder._judge.memory = MemorySampler(ResidentMemory(), interval=0.001, from_seconds=0.005)
with DuckDBDatabase({path!r}, recorder, read_only=True) as database:
    counts = [threads()]
    result = database.evaluate("Patient.name.family", mode={mode!r})
    counts.append(threads())
    rows = result.fetchall()
    metrics = collected()
[root] = [span for span in exporter.get_finished_spans() if span.name.startswith("fhirpath evaluate")]
[thread] = [thread for thread in threading.enumerate() if thread.name == "fhirpath-otel-memory"]
thread.join(30)
counts.append(threads())
print(json.dumps({{"root": dict(root.attributes), "metrics": metrics, "threads": counts, "rows": len(rows)}}))
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A database of 20 MB of names."""
    folder = tmp_path_factory.mktemp("large")
    with (folder / "patients.ndjson").open("w") as file:
        for number in range(COUNT):
            name = [{"family": f"{number}-".ljust(VALUE_BYTES, "x")}]
            file.write(json.dumps({"resourceType": "Patient", "id": str(number), "name": name}) + "\n")
    with DuckDBDatabase(folder / "x.duckdb", Recorder(lambda _: Decision(False, "not_selected"))) as database:
        database.load(folder / "patients.ndjson")
    return folder / "x.duckdb"


@pytest.mark.parametrize("mode", ["sql", "memory"])
def test_a_large_result_is_seen_in_its_evaluation(path, run_script, mode):
    done = run_script(EVALUATE.format(path=str(path), mode=mode))
    found = json.loads(done.stdout)
    assert found["rows"] == COUNT
    root, metrics = found["root"], found["metrics"]
    assert root["fhirpath.memory.rss.delta"] > SIZE / 2
    assert root["fhirpath.memory.rss.peak"] > SIZE
    assert root["fhirpath.database.memory.peak"] > 0
    assert root["fhirpath.database.temp.peak"] == 0
    assert metrics["fhirpath.evaluation.memory.rise"] >= root["fhirpath.memory.rss.delta"]
    assert metrics["process.memory.usage"] > SIZE
    assert metrics["fhirpath.database.memory.usage"] > 0
    assert found["threads"] == [0, 1, 0]
    assert done.stderr == ""


def test_one_file_that_is_open_twice_is_counted_once_and_a_closed_one_not_at_all(path):
    recorder = Recorder(lambda _: Decision(False, "not_selected"))
    with (
        DuckDBDatabase(path, recorder, read_only=True) as first,
        DuckDBDatabase(path, recorder, read_only=True) as second,
    ):
        memory = first.memory.in_use(0)
        assert memory.memory > 0
        assert second.memory.in_use(0) == memory
        assert recorder.databases.totals() == {"duckdb": memory}
    assert recorder.databases.totals() == {}

"""Programs that fork, each a process of its own with a real receiver: no hang, no double, nothing is lost."""

from __future__ import annotations

import os
import sys
from collections import Counter
from multiprocessing import get_all_start_methods
from pathlib import Path

import pytest

from fhirpath_otel import semconv
from tests.integration import forking

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

UNCOVERED = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}
PROTOCOLS = ("grpc", "http/protobuf")
KEEP_ALL = {
    "OTEL_PYTHON_FHIRPATH_BASELINE_RATE": "1",
    "OTEL_PYTHON_FHIRPATH_MAX_TRACES_PER_SECOND": "1000000",
}


def exported_spans(received) -> Counter[str]:
    """Root spans by who evaluated. That none came twice is asserted."""
    spans = [
        span
        for request in received.traces
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert len({(span.trace_id, span.span_id) for span in spans}) == len(spans)
    engines = (
        item.value.string_value
        for span in spans
        for item in span.attributes
        if item.key == semconv.ENGINE_VERSION.name
    )
    return Counter(engines)


def counted(received) -> dict[str, dict[str, int]]:
    """What each instance of the service counted last of evaluations: how often who evaluated."""
    last: dict[tuple[str, str, str], int] = {}
    for request in received.metrics:
        for resource in request.resource_metrics:
            instance = labels(resource.resource).get("service.instance.id", "-")
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == semconv.EVALUATION_DURATION.name:
                        for point in metric.histogram.data_points:
                            of = labels(point)
                            last[instance, of[semconv.ENGINE_VERSION.name], str(of)] = point.count
    counts: dict[str, Counter[str]] = {}
    for (instance, engine, _), count in last.items():
        counts.setdefault(instance, Counter())[engine] += count
    return counts


def labels(item) -> dict[str, str]:
    return {label.key: label.value.string_value for label in sorted(item.attributes, key=lambda one: one.key)}


def variables(received, protocol):
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        **KEEP_ALL,
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("flushed_before", [False, True])
def test_preloading_parent_and_workers_export_their_own_and_once(
    receivers, run_script, protocol, flushed_before
):
    with receivers[protocol]() as received:
        done = run_script(
            forking.PRELOAD.format(flushed_before=flushed_before), **variables(received, protocol)
        )
    assert "Traceback" not in done.stderr
    assert exported_spans(received) == {"parent": 8, "child0": 3, "child1": 3}
    by_instance = counted(received)
    assert sorted(map(dict, by_instance.values()), key=str) == [{"child0": 3}, {"child1": 3}, {"parent": 8}]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pool_of_multiprocessing_exports_what_its_workers_evaluated(receivers, run_script, protocol):
    with receivers[protocol]() as received:
        done = run_script(forking.POOL, **variables(received, protocol))
    assert "Traceback" not in done.stderr
    assert exported_spans(received) == {"parent": 5, "pool": 12}
    counts = Counter()
    for series in counted(received).values():
        assert len(series) == 1, "a worker counts nothing of its parent"
        counts.update(series)
    assert counts == {"parent": 5, "pool": 12}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_threads_that_record_and_flush_while_the_process_forks_hang_no_child(receivers, run_script, protocol):
    with receivers[protocol]() as received:
        done = run_script(
            forking.RACE,
            OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_BSP_SCHEDULE_DELAY="5",
            **UNCOVERED,  # tracing lines, threads would leave no turn to the one that forks
        )
    assert "Traceback" not in done.stderr
    assert exported_spans(received)["child"] >= 25
    children = [series for series in counted(received).values() if series == {"child": 20}]
    assert len(children) == 25


@pytest.mark.parametrize("where", ["top", "worker"])
@pytest.mark.parametrize("method", [one for one in ("fork", "forkserver") if one in get_all_start_methods()])
def test_workers_of_multiprocessing_hand_over_however_they_are_started(receivers, run_script, method, where):
    path = Path(__file__).with_name("spawned.py")
    with receivers["grpc"]() as received:
        command = [sys.executable, str(path), method, where]
        script = f"import subprocess; subprocess.run({command!r}, check=True)"
        done = run_script(script, **variables(received, "grpc"))
    assert "Traceback" not in done.stderr
    assert exported_spans(received) == {"child": 6}

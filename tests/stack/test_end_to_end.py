"""From an expression to what people look at, through all programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fhirpath_otel import population
from fhirpath_otel.telemetry.local_files import read_traces
from tests.stack import application
from tests.stack.clients import eventually

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]
PUSHDOWN = ("Patient.name.where(use = 'official').family", "Observation.status")
IN_MEMORY = "Patient.name.select(given.join(' ') + ' ' + family)"
# Jaeger writes these beside the attributes of a span.
OF_JAEGER = {
    "span.kind",
    "otel.scope.name",
    "otel.scope.version",
    "otel.status_code",
    "error",
    "w3c.tracestate",
}
COUNT = "fhirpath_evaluation_duration_seconds_count"


def command_line(environment, *words):
    return subprocess.run(
        [sys.executable, "-m", "fhirpath_otel", *words],
        env=environment | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """A database of 100 patients and what belongs to them."""
    folder = tmp_path_factory.mktemp("clinic")
    population.write(folder / "export", 100)
    silent = {"OTEL_SDK_DISABLED": "true", "HOME": str(folder)}
    command_line(silent, "load", str(folder / "clinic.duckdb"), str(folder / "export"))
    return folder / "clinic.duckdb"


@pytest.fixture(scope="module", params=["grpc", "http/protobuf"])
def measured(request, stack, clinic, tmp_path_factory):
    """The service that evaluated over this protocol, and its spans as they were before they left the process."""
    service = f"clinic-by-{request.param.partition('/')[0]}"
    own = tmp_path_factory.mktemp("own")
    environment = stack.application_environment(
        service,
        OTEL_EXPORTER_OTLP_ENDPOINT={"grpc": stack.grpc, "http/protobuf": stack.http}[request.param],
        OTEL_EXPORTER_OTLP_PROTOCOL=request.param,
        OTEL_RESOURCE_ATTRIBUTES="service.version=1.2.3",
        OTEL_PYTHON_FHIRPATH_TRACES_DIRECTORY=str(own),
    )
    command_line(environment, "evaluate", str(clinic), *PUSHDOWN, IN_MEMORY)
    return service, read_traces(own)


def shown(value):
    """An attribute as Jaeger's API gives it: lists are JSON in a text."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False) if isinstance(value, list) else value


@pytest.fixture(scope="module")
def trace(stack, measured):
    """The service's only trace, whole."""
    service, spans = measured

    def arrived():
        found = stack.jaeger.traces(service)
        assert [len(trace) for trace in found] == [len(spans)]
        return found[0]

    return eventually(arrived)


def test_the_trace_in_jaeger_is_the_one_that_left_the_process(measured, trace):
    _, spans = measured
    expected = {
        span.span_id: (
            span.name,
            span.parent_span_id,
            {name: shown(value) for name, value in span.attributes.items()},
        )
        for span in spans
    }
    assert {
        span.span_id: (
            span.name,
            span.parent_id,
            {name: value for name, value in span.attributes.items() if name not in OF_JAEGER},
        )
        for span in trace
    } == expected
    assert {span.resource["service.version"] for span in trace} == {"1.2.3"}


def test_every_stage_is_below_its_evaluation(trace):
    stages = {}
    for span in trace:
        if stage := span.attributes.get("fhirpath.stage"):
            stages.setdefault(span.parent_id, set()).add(stage)
    evaluations = [span for span in trace if "fhirpath.execution.mode" in span.attributes]
    [command] = [span for span in trace if span.parent_id is None]
    assert command.name == "fhirpath-otel evaluate"
    assert {span.parent_id for span in evaluations} == {command.span_id}
    compiled = {"parse", "type_check", "collection", "sql"}
    assert [(span.attributes["fhirpath.execution.mode"], stages[span.span_id]) for span in evaluations].count(
        ("pushdown", compiled)
    ) == len(PUSHDOWN)
    [fallback] = [span for span in evaluations if span.attributes["fhirpath.execution.mode"] == "in_memory"]
    assert stages[fallback.span_id] >= {"parse", "type_check", "in_memory"}


def test_prometheus_counts_what_was_evaluated(stack, measured):
    service, _ = measured
    of = f'{{service_name="{service}",service_version="1.2.3",job="{service}"}}'

    def count(metric, by):
        found = stack.prometheus.query(f"sum by ({by}) ({metric}{of})")
        return {sample.labels.get(by): sample.value for sample in found}

    eventually(lambda: stack.prometheus.value(f"sum({COUNT}{of})") == 3)
    assert count(COUNT, "fhirpath_execution_mode") == {"pushdown": 2, "in_memory": 1}
    assert count("fhirpath_telemetry_traces_total", "decision") == {"kept": 3}
    stages = count("fhirpath_stage_duration_seconds_count", "fhirpath_stage")
    assert set(stages) == {"parse", "type_check", "collection", "sql", "in_memory"}
    assert stages["parse"] == 3
    assert stages["in_memory"] == 1
    instances = stack.prometheus.query(f"count by (instance) ({COUNT}{of})")
    assert len(instances) == 1
    assert instances[0].labels["instance"]


def test_every_exemplar_of_a_duration_leads_to_a_trace(stack, measured):
    service, spans = measured
    series = f'fhirpath_evaluation_duration_seconds_bucket{{service_name="{service}"}}'
    exemplars = eventually(lambda: stack.prometheus.exemplars(series))
    assert {exemplar["labels"]["trace_id"] for exemplar in exemplars} == {spans[0].trace_id}
    evaluations = {span.span_id for span in spans if "fhirpath.execution.mode" in span.attributes}
    assert {exemplar["labels"]["span_id"] for exemplar in exemplars} <= evaluations
    assert eventually(lambda: stack.jaeger.trace(exemplars[0]["labels"]["trace_id"]))


def test_processes_of_one_service_add_up(stack, tmp_path):
    """One that has ended, and two at once: a deployment that is replaced."""
    file = population.write(tmp_path, 5)["Patient"]
    environment = stack.application_environment("replicas")
    with application.running(environment, file) as before:
        before.evaluate(PUSHDOWN[0], times=5)
    with (
        application.running(environment, file) as one,
        application.running(environment, file) as other,
    ):
        one.evaluate(PUSHDOWN[0], times=10)
        other.evaluate(PUSHDOWN[0], times=20)
        one.evaluate(PUSHDOWN[0], times=30)

        def counted():
            found = stack.prometheus.query(f'sum by (instance) ({COUNT}{{service_name="replicas"}})')
            return sorted(sample.value for sample in found) == [5, 20, 40]

        eventually(counted)

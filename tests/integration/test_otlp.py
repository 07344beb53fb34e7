"""Spans and metrics as a real OTLP receiver gets them, from an SDK that `configure` set up by variables."""

from __future__ import annotations

import pytest

from fhirpath_otel import semconv

EVALUATE = """
import sys
from fhirpath_otel import configuration, semconv
from fhirpath_otel.telemetry.database_memory import DatabaseMemory, InUse
from fhirpath_otel.telemetry.redaction import template_from

configuration.configure()
recorder = configuration.recorder()
database = DatabaseMemory("duckdb", 1, lambda: InUse(1, 0))
recorder.databases.add(database)
for error in (None, "database"):
    evaluation = recorder.begin()
    evaluation.expression, evaluation.template = "Patient.name", template_from("Patient.name")
    evaluation.resource_type, evaluation.execution_mode = "Patient", semconv.PUSHDOWN
    evaluation.engine_version, evaluation.fhir_version = "1", "4.0.1"
    evaluation.cache_hit, evaluation.result_count = False, 3
    evaluation.rss_start, evaluation.rss_peak = 1, 2
    evaluation.db_system, evaluation.statement_summary = "duckdb", "SELECT Patient"
    for number, stage in enumerate((semconv.PARSE, semconv.TYPE_CHECK, semconv.COLLECTION, semconv.SQL)):
        start = evaluation.start_ns + number
        evaluation.stages.append((stage, start, start + 1))
    outcome = recorder.finish(evaluation, error)
    print(f"{outcome.trace_id:032x}")
"""
HEADERS = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abc,x-team=a"}
PROTOCOLS = ("grpc", "http/protobuf")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("compression", ["", "gzip"])
def test_spans_and_metrics_arrive_with_headers_and_resource(receivers, run_script, protocol, compression):
    with receivers[protocol]() as received:
        done = run_script(
            EVALUATE,
            OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            **({"OTEL_EXPORTER_OTLP_COMPRESSION": compression} if compression else {}),
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
            OTEL_SERVICE_NAME="clinic",
            **HEADERS,
        )
    assert done.stderr == ""
    spans = received.spans()
    assert set(spans) == {
        "fhirpath evaluate Patient",
        "fhirpath parse",
        "fhirpath type_check",
        "fhirpath collection",
        "SELECT Patient",
    }
    assert spans["fhirpath evaluate Patient"].trace_id.hex() in done.stdout.split()
    assert spans["SELECT Patient"].parent_span_id == spans["fhirpath evaluate Patient"].span_id
    unseen = {semconv.LOST.name, semconv.FINDINGS.name, semconv.OPERATOR_DURATION.name}
    assert received.metric_names() == {item.name for item in semconv.METRICS} - unseen
    for resource in received.resources():
        assert (resource["service.name"], resource["deployment.environment.name"]) == ("clinic", "test")
    for headers in received.headers:
        assert (headers["authorization"], headers["x-team"]) == ("Bearer abc", "a")
    if protocol == "http/protobuf":
        assert received.paths == {"/v1/traces", "/v1/metrics"}
        encodings = {headers.get("content-encoding") for headers in received.headers}
        assert encodings == {compression or None}


def test_processes_of_one_service_send_metrics_as_instances_of_their_own(receivers, run_script):
    with receivers["grpc"]() as received:
        for _ in range(2):
            run_script(EVALUATE, OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint, OTEL_SERVICE_NAME="clinic")
    assert len(metric_instances(received) - {None}) == 2


def test_an_instance_that_the_variables_name_stays(receivers, run_script):
    with receivers["grpc"]() as received:
        run_script(
            EVALUATE,
            OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint,
            OTEL_RESOURCE_ATTRIBUTES="service.instance.id=ward-3",
        )
    assert metric_instances(received) == {"ward-3"}


def metric_instances(received):
    return {
        {item.key: item.value.string_value for item in resource.resource.attributes}.get(
            "service.instance.id"
        )
        for request in received.metrics
        for resource in request.resource_metrics
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_bottleneck_arrives_on_the_root_span_and_as_a_metric(receivers, run_script, protocol):
    script = EVALUATE.replace('(None, "database")', "(None, None)")
    script = script.replace(
        "recorder.begin()\n", "recorder.begin()\n    evaluation.start_ns -= 12_000_000\n", 1
    )
    script = script.replace("start + 1)", "start + 10_000_000 * (stage == semconv.TYPE_CHECK))")
    with receivers[protocol]() as received:
        done = run_script(
            script, OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint, OTEL_EXPORTER_OTLP_PROTOCOL=protocol
        )
    assert done.stderr == ""
    assert semconv.FINDINGS.name in received.metric_names()
    attributes = {item.key: item.value for item in received.spans()["fhirpath evaluate Patient"].attributes}
    assert attributes["fhirpath.sampling.reason"].string_value == "bottleneck"
    assert {span.trace_state for span in received.spans().values()} == {"ot=th:0"}
    assert attributes["fhirpath.bottleneck.rule"].string_value == "type-check-dominates"
    assert attributes["fhirpath.bottleneck.severity"].string_value == "warning"
    for name in ("rules", "advice"):
        assert len(attributes[f"fhirpath.bottleneck.{name}"].array_value.values) == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tls_trusts_the_certificate_that_is_set(receivers, run_script, certificate, protocol):
    with receivers[protocol](certificate) as received:
        done = run_script(
            EVALUATE,
            OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_CERTIFICATE=str(certificate.certificate),
        )
    assert done.stderr == ""
    assert "SELECT Patient" in received.spans()
    assert semconv.EVALUATION_DURATION.name in received.metric_names()
    assert {resource["service.name"] for resource in received.resources()} == {"fhirpath-otel"}


def test_each_signal_can_have_its_own_endpoint_and_protocol(receivers, run_script):
    with receivers["grpc"]() as traces, receivers["http/protobuf"]() as metrics:
        done = run_script(
            EVALUATE,
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=traces.endpoint,
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{metrics.endpoint}/own/v1/metrics",
            OTEL_EXPORTER_OTLP_METRICS_PROTOCOL="http/protobuf",
            OTEL_EXPORTER_OTLP_METRICS_HEADERS="x-signal=metrics",
        )
    assert done.stderr == ""
    assert "SELECT Patient" in traces.spans()
    assert not traces.metrics
    assert not metrics.traces
    assert (metrics.paths, metrics.headers[0]["x-signal"]) == ({"/own/v1/metrics"}, "metrics")
    assert semconv.TRACES.name in metrics.metric_names()


def test_what_the_hosts_sampler_refuses_is_in_no_span_but_in_the_metrics(receivers, run_script):
    script = EVALUATE.replace('print(f"{outcome.trace_id:032x}")', "print(outcome.reason)")
    with receivers["grpc"]() as received:
        done = run_script(
            script, OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint, OTEL_TRACES_SAMPLER="always_off"
        )
    assert done.stdout.split() == ["host_sampler", "host_sampler"]
    assert not received.traces
    assert semconv.EVALUATION_DURATION.name in received.metric_names()


def test_a_receiver_that_is_not_there_delays_the_exit_only_within_its_bound(run_script):
    script = "import time\n" + EVALUATE + "\nprint(configuration.flush(0.1), configuration.shutdown(0.1))"
    done = run_script(script, OTEL_EXPORTER_OTLP_ENDPOINT="http://localhost:1")
    assert done.stdout.split()[-2:] == ["False", "False"]
    assert "Traceback" not in done.stderr

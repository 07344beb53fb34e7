"""The programs are there and speak with each other; every other test of the stack builds upon that."""

from __future__ import annotations

import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Status, StatusCode

from tests.stack.clients import eventually
from tools.stack import processes
from tools.stack.failures import RunsAlready
from tools.stack.services import SERVICES

pytestmark = pytest.mark.stack


def send_trace(endpoint, service, name="greeting"):
    """Sends one span over HTTP, as an error: those are always kept."""
    provider = TracerProvider(resource=Resource({"service.name": service}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{endpoint}/v1/traces")))
    with provider.get_tracer("test").start_as_current_span(name) as span:
        span.set_status(Status(StatusCode.ERROR))
    provider.shutdown()
    return f"{span.get_span_context().trace_id:032x}"


def send_metric(endpoint, service):
    """Sends one count over gRPC."""
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint, insecure=True))
    provider = MeterProvider([reader], Resource({"service.name": service, "service.instance.id": "one"}))
    provider.get_meter("test").create_counter("fhirpath.parser.cache.requests", "{request}").add(3)
    provider.shutdown()


def test_a_trace_is_found_in_jaeger(stack):
    trace_id = send_trace(stack.http, "sends-a-trace")
    traces = eventually(lambda: stack.jaeger.traces("sends-a-trace"))
    assert [[span.trace_id for span in trace] for trace in traces] == [[trace_id]]
    assert [span.service for span in stack.jaeger.trace(trace_id)] == ["sends-a-trace"]


def test_a_metric_is_found_in_prometheus(stack):
    send_metric(stack.grpc, "sends-a-metric")
    query = 'fhirpath_parser_cache_requests_total{job="sends-a-metric"}'
    assert eventually(lambda: stack.prometheus.value(query)) == 3


def test_prometheus_scrapes_every_program_and_tells_alertmanager(stack):
    def all_up():
        health = stack.prometheus.targets()
        assert {job for job, _ in health} == {
            "otelcol",
            "otelcol-self",
            "jaeger",
            "prometheus",
            "alertmanager",
        }
        return set(health.values()) == {"up"}

    eventually(all_up)
    eventually(lambda: stack.prometheus.value("prometheus_notifications_alertmanagers_discovered") == 1)


def test_a_stack_is_not_started_twice(stack):
    with pytest.raises(RunsAlready, match="otelcol, jaeger, prometheus, alertmanager"):
        stack.runner.start_all()
    assert all(running.healthy() for running in processes.recorded(stack.runner.plan.folder, SERVICES))


def test_a_program_that_was_killed_is_started_again_with_another_setting(own_stack):
    own_stack.kill("otelcol")
    own_stack.start("otelcol")
    with own_stack.changed("otelcol", DECISION_WAIT="2s"):
        trace_id = send_trace(own_stack.http, "after-a-restart")
        eventually(lambda: own_stack.jaeger.trace(trace_id))
    own_stack.runner.stop()
    assert not any(running.alive() for running in processes.recorded(own_stack.runner.plan.folder, SERVICES))

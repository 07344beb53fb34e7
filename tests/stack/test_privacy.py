"""Whatever a program that knows nothing of us puts into its telemetry: none of it is in what the stack keeps.

The places are searched for a text that was sent beside the secrets and may pass; where it is not found, the search
does not work.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from contextlib import suppress

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags, TraceState

from tests.stack.clients import eventually, get_json, get_text
from tests.stack.otlp import counter, metrics_request, span, spans_request

pytestmark = pytest.mark.stack

# No four characters of theirs stand anywhere else: where files are compressed, they stand there whole all the same.
SECRET = "Jq7Zw9Kx2Vp4"  # noqa: S105 -- a canary
CONTROL = "Hy3Gd8Tb6Nf5"
SERVICE = f"knows-nothing-{CONTROL}"
PATIENT = f"Jane {SECRET}, 1970-01-01"
BLOCK = 1 << 22

SECRETS = {
    "patient.name": PATIENT,
    f"of.{SECRET}": 1,
    "db.statement": f"SELECT * FROM Patient WHERE name = '{SECRET}'",
    "db.query.summary": f"SELECT '{SECRET}'",
    "url.full": f"https://fhir.example.org/Patient?name={SECRET}",
    "http.route": f"/Patient/{SECRET}",
    "fhirpath.expression.template": f"{SECRET}, Peter",
    "fhirpath.operator.name": SECRET,
    "rpc.system": SECRET,
    "url.scheme": SECRET,
    "exception.type": f"{SECRET}+Peter",
    "fhirpath.bottleneck.advice": [f"ask {PATIENT}"],
    "error.type": f"no such patient: {PATIENT}",
    "redaction.masked.keys": SECRET,
}


def send_spans(endpoint):
    """Spans that all are kept, since they failed, with the secret wherever an SDK takes a text."""
    provider = TracerProvider(
        resource=Resource(
            SECRETS | {"service.name": SERVICE, "process.command_line": SECRET, "host.name": PATIENT}
        )
    )
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint, insecure=True)))
    tracer = provider.get_tracer(f"library of {SECRET}", attributes=SECRETS, schema_url=f"https://{SECRET}")
    state = TraceState([("vendor", SECRET)])
    other = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1), trace_state=state)
    caller = trace.set_span_in_context(trace.NonRecordingSpan(other))
    attributes = SECRETS | {"db.namespace": CONTROL}
    for context in (None, caller):
        with (
            suppress(ValueError),
            tracer.start_as_current_span(
                f"GET /Patient/{SECRET}", context, attributes=attributes, links=[Link(other, SECRETS)]
            ) as sent,
        ):
            sent.add_event(f"loaded {PATIENT}", SECRETS)
            sent.set_status(Status(StatusCode.ERROR, f"cannot read {PATIENT}"))
            raise ValueError(PATIENT)
    provider.shutdown()


def send_metrics(endpoint):
    """Points, exemplars (with the attributes that a view takes away from the point), and a scope with the secret."""
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint, insecure=True))
    provider = MeterProvider(
        [reader],
        Resource(SECRETS | {"service.name": SERVICE, "service.instance.id": "one"}),
        exemplar_filter=AlwaysOnExemplarFilter(),
        views=[View(instrument_name="viewed", attribute_keys={"http.request.method"})],
    )
    meter = provider.get_meter(f"library of {SECRET}", attributes=SECRETS)
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("measured"):
        meter.create_counter("counted", f"{{{SECRET}}}", PATIENT).add(
            1, SECRETS | {"fhirpath.resource.type": SECRET}
        )
        meter.create_histogram("viewed", "s").record(0.1, SECRETS | {"http.request.method": "GET"})
    provider.shutdown()


def send_what_no_sdk_sends(stack):
    """A metric's name that is a text, spans whose check fails, and requests that cannot be read."""
    with grpc.insecure_channel(stack.grpc.removeprefix("http://")) as channel:
        named = counter(f"patients like {PATIENT}", SECRETS)
        MetricsServiceStub(channel).Export(metrics_request(named, resource={"service.name": SERVICE}))
        unchecked = span(PATIENT, SECRETS | {"fhirpath.bottleneck.rules": [SECRET, float("nan")]})
        with pytest.raises(grpc.RpcError):
            TraceServiceStub(channel).Export(spans_request(unchecked, resource=SECRETS))
    for body in (f'{{"resourceSpans": "{SECRET}"}}', f'{{"{SECRET}": '):
        with suppress(urllib.error.HTTPError):
            post(f"{stack.http}/v1/traces?patient={SECRET}", body)


def tell_alertmanager(stack):
    """An alert that names the service, as ours do."""
    alert = {"labels": {"alertname": "Told", "service_name": SERVICE}}
    post(f"{stack.alertmanager.url}/api/v2/alerts", json.dumps([alert]))


def post(url, body):
    headers = {"Content-Type": "application/json", "User-Agent": f"browser of {SECRET}"}
    request = urllib.request.Request(url, body.encode(), headers)  # noqa: S310 -- http, on loopback
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310 -- as above
        pass


def blocks(path):
    """What is written in a file, with some of the block before; Badger's files are mostly holes."""
    with path.open("rb") as file:
        at, kept = 0, b""
        while True:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            file.seek(at)
            block = file.read(min(BLOCK, end - at))
            if not block:
                return
            yield kept + block
            at, kept = at + len(block), block[-64:]


def found_in(folder):
    """Which of the two texts stand in the files of a folder, in their names too."""
    found = set()
    for path in folder.rglob("*"):
        if path.is_file():
            for block in (str(path.relative_to(folder)).encode(), *blocks(path)):
                found.update(text for text in (SECRET, CONTROL) if text.encode() in block)
    return found


def found_by_asking(stack):
    """Which of the two texts each program tells, through all that may be asked of it about data."""

    def found(*answers):
        text = json.dumps(answers)
        return {one for one in (SECRET, CONTROL) if one in text}

    jaeger, prometheus, plan = stack.jaeger, stack.prometheus, stack.runner.plan
    services = jaeger.services()
    traces = [span.everything for service in services for one in jaeger.traces(service) for span in one]
    operations = [get_json(f"{jaeger.url}/api/services/{service}/operations") for service in services]
    return {
        "Jaeger's API": found(services, operations, traces),
        "Prometheus' series": found(prometheus.series()),
        "what Prometheus scrapes": found(get_text(f"http://{plan.address('OTELCOL_METRICS_PORT')}/metrics")),
        "Alertmanager's API": found(stack.alertmanager.alerts()),
    }


def test_no_secret_of_a_foreign_program_is_kept_anywhere(own_stack):
    stack, folder = own_stack, own_stack.runner.plan.folder
    stack.kill("jaeger")
    send_spans(stack.grpc)
    send_metrics(stack.grpc)
    send_what_no_sdk_sends(stack)
    tell_alertmanager(stack)
    size = 'otelcol_exporter_queue_size{data_type="traces",exporter="otlp_grpc/jaeger"}'
    eventually(lambda: stack.own_metrics("otelcol").get(size) == 2)
    queue = found_in(folder / "otelcol")
    stack.start("jaeger")
    traces = eventually(lambda: len(found := stack.jaeger.traces(SERVICE)) == 2 and found)
    exemplars = eventually(lambda: stack.prometheus.exemplars(f'{{service_name="{SERVICE}"}}'))
    eventually(lambda: stack.prometheus.value(f'counted_total{{service_name="{SERVICE}"}}'))
    eventually(lambda: stack.prometheus.query(f'traces_span_metrics_calls_total{{service_name="{SERVICE}"}}'))
    asked = found_by_asking(stack)
    # Badger compresses its files when it ends; Alertmanager writes its own then.
    stored = {name: found_in(folder / name) for name in ("jaeger", "prometheus")}
    stack.stop("alertmanager")
    searched = {"the queue": queue, **asked, **stored}
    assert searched == {place: {CONTROL} for place in searched}
    everywhere = found_in(folder)
    told = {name: stack.log(name) for name in ("otelcol", "jaeger", "prometheus", "alertmanager")}
    for name in ("metadata", "targets", "alerts"):
        told[name] = json.dumps(get_json(f"{stack.prometheus.url}/api/v1/{name}"))
    assert [name for name, text in told.items() if SECRET in text] == []
    assert everywhere == {CONTROL}
    assert {frozenset(exemplar["labels"]) for exemplar in exemplars} == {frozenset({"trace_id", "span_id"})}
    assert {item.name for one in traces for item in one} == {"span"}

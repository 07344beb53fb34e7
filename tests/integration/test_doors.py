"""The exporter as variables ask for it, and the processor in code, up to a real OTLP receiver."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fhirpath_otel import semconv

ROOT = Path(__file__).parents[2]
PROTOCOLS = ("grpc", "http/protobuf")

SDK = """
from opentelemetry.sdk._configuration import _OTelSDKConfigurator
_OTelSDKConfigurator().configure()
"""
CONFIGURE = """
import fhirpath_otel
fhirpath_otel.configure()
"""
WORK = """
import sys
from opentelemetry import trace
from fhirpath_otel import configuration

engine, host = trace.get_tracer("fhirpath_otel.fhirpathpy"), trace.get_tracer("host")
HASH = {"fhirpath.engine.name": "fhirpathpy"}

def evaluate(expression, error=None):
    facts = {**HASH, "fhirpath.expression.hash": expression}
    with engine.start_as_current_span("evaluate " + expression, attributes=facts) as span:
        engine.start_span("parse " + expression, attributes={"fhirpath.stage": "parse"}).end()
        if error:
            span.set_attribute("error.type", error)

with host.start_as_current_span("GET /Patient", attributes={"url.query": "CANARY"}):
    for _ in range(50):
        evaluate("1111111111111111")
    evaluate("2222222222222222", "syntax")
recorder = configuration.recorder()
evaluation = recorder.begin()
evaluation.expression, evaluation.resource_type = "Patient..name", "Patient"
recorder.finish(evaluation, "syntax")
"""
END = """
from opentelemetry import metrics
trace.get_tracer_provider().shutdown()
metrics.get_meter_provider().force_flush()
"""


@pytest.fixture
def work(receivers, run_script):
    """Runs a set-up with work after it, against a receiver; what that was sent, and what was said."""

    def work(setup, protocol="grpc", end=END, **variables):
        with receivers[protocol]() as received:
            done = run_script(
                setup + WORK + end,
                **{
                    "OTEL_TRACES_EXPORTER": "fhirpath_otel",
                    "OTEL_METRICS_EXPORTER": "otlp" if "grpc" in protocol else "otlp_proto_http",
                    "OTEL_LOGS_EXPORTER": "none",
                    "OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint,
                    "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                    "OTEL_PYTHON_FHIRPATH_BASELINE_RATE": "0",
                    **variables,
                },
            )
        return received, done

    return work


def text(span, name):
    return {item.key: item.value.string_value for item in span.attributes}.get(name)


@pytest.mark.parametrize("setup", [SDK, CONFIGURE], ids=["sdk", "configure"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_variables_alone_make_the_exporter_decide(work, setup, protocol):
    received, done = work(setup, protocol, OTEL_METRICS_EXPORTER="otlp" if setup is CONFIGURE else "none")
    assert done.stderr == ""
    spans = received.spans()
    assert set(spans) == {
        "GET /Patient",
        *("evaluate 1111111111111111", "parse 1111111111111111"),
        *("evaluate 2222222222222222", "parse 2222222222222222"),
        "fhirpath evaluate Patient",
    }
    assert (
        sum(len(scope.spans) for r in received.traces for rs in r.resource_spans for scope in rs.scope_spans)
        == 6
    )
    reasons = {name: text(span, semconv.SAMPLING_REASON.name) for name, span in spans.items()}
    assert reasons["evaluate 1111111111111111"] == "first_sighting"
    assert reasons["evaluate 2222222222222222"] == "error"
    assert reasons["fhirpath evaluate Patient"] == "error"
    assert reasons["GET /Patient"] is None
    assert text(spans["GET /Patient"], "url.query") == "CANARY"
    request = spans["GET /Patient"]
    assert spans["evaluate 1111111111111111"].parent_span_id == request.span_id


def test_what_became_of_traces_is_counted_beside_the_recorders(work):
    received, _ = work(CONFIGURE)
    assert received.counts(semconv.TRACES.name) == {
        ("dropped", "not_selected"): 49,
        ("kept", "first_sighting"): 1,
        ("kept", "error"): 2,
    }


def test_stripping_is_a_setting(work):
    received, _ = work(SDK, OTEL_METRICS_EXPORTER="none", OTEL_PYTHON_FHIRPATH_STRIP_FOREIGN="on")
    assert b"CANARY" not in b"".join(request.SerializeToString() for request in received.traces)
    assert "GET /Patient" in received.spans()


def test_all_is_a_setting(work):
    received, _ = work(SDK, OTEL_METRICS_EXPORTER="none", OTEL_PYTHON_FHIRPATH_TAIL_SAMPLING="all")
    spans = received.spans()
    assert text(spans["GET /Patient"], semconv.SAMPLING_REASON.name) == "error"
    assert len(received.traces[0].resource_spans[0].scope_spans) == 3


def test_what_cannot_be_exported_is_counted_and_said_once(work):
    received, done = work(
        CONFIGURE,
        end=END,
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://localhost:1",
        OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_TRACES_TIMEOUT="1",
    )
    assert not received.traces
    assert received.counts(semconv.LOST.name) == {("export_failed", "span"): 6}
    assert done.stderr.count("telemetry was lost") == 1


def test_a_protocol_that_nobody_knows_costs_a_warning_and_not_the_program(work):
    received, done = work(
        SDK, OTEL_METRICS_EXPORTER="none", OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="carrier-pigeon"
    )
    assert "traces are not exported: OTEL_EXPORTER_OTLP_TRACES_PROTOCOL='carrier-pigeon'" in done.stderr
    assert not received.traces


PROCESSOR = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
import fhirpath_otel as fo

provider = TracerProvider()
provider.add_span_processor(fo.TailSamplingSpanProcessor(fo.BottleneckSpanProcessor(BatchSpanProcessor(OTLPSpanExporter()))))
trace.set_tracer_provider(provider)
"""


def test_the_processor_in_code_decides_too(work):
    received, done = work(PROCESSOR, end="\nprovider.shutdown()\n")
    assert done.stderr == ""
    assert (
        sum(len(scope.spans) for r in received.traces for rs in r.resource_spans for scope in rs.scope_spans)
        == 6
    )
    spans = received.spans()
    assert spans["evaluate 2222222222222222"].trace_state == ""
    assert text(spans["evaluate 1111111111111111"], semconv.SAMPLING_REASON.name) == "first_sighting"


DRIVER = """
import json, pathlib, tempfile
import fhirpath_otel as fo
from opentelemetry import trace

folder = pathlib.Path(tempfile.mkdtemp())
(folder / "p.ndjson").write_text(json.dumps({"resourceType": "Patient", "id": "1", "birthDate": "2000-01-01"}))
database = fo.connect(":memory:")
database.load(folder)
tracer = trace.get_tracer("driver")
borrow = database.borrow_cursor

class Cursor:
    def __init__(self, cursor): self._cursor = cursor
    def execute(self, *args):
        with tracer.start_as_current_span("driver execute"):
            return self._cursor.execute(*args)
    def __getattr__(self, name): return getattr(self._cursor, name)

database.borrow_cursor = lambda: Cursor(borrow())
database.return_cursor = lambda cursor: None
for _ in range(5):
    with database.evaluate("Patient.birthDate") as result:
        list(result)
"""


@pytest.mark.parametrize("setup", [SDK, CONFIGURE], ids=["sdk", "configure"])
def test_drivers_spans_come_out_below_our_sql_span_or_not_at_all(receivers, run_script, setup):
    with receivers["grpc"]() as received:
        run_script(
            setup + DRIVER + "trace.get_tracer_provider().shutdown()",
            OTEL_TRACES_EXPORTER="fhirpath_otel",
            OTEL_METRICS_EXPORTER="none",
            OTEL_LOGS_EXPORTER="none",
            OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint,
            OTEL_PYTHON_FHIRPATH_BASELINE_RATE="0",
        )
    names = [
        s.name for r in received.traces for rs in r.resource_spans for c in rs.scope_spans for s in c.spans
    ]
    assert names.count("driver execute") == names.count("SELECT Patient") == 1
    spans = received.spans()
    assert spans["driver execute"].parent_span_id == spans["SELECT Patient"].span_id


@pytest.mark.parametrize("exporters", ["fhirpath_otel,console", "console"])
def test_where_spans_also_leave_elsewhere_they_are_siblings(receivers, run_script, exporters):
    with receivers["grpc"]() as received:
        done = run_script(
            CONFIGURE + DRIVER + "trace.get_tracer_provider().shutdown()",
            OTEL_TRACES_EXPORTER=exporters,
            OTEL_METRICS_EXPORTER="none",
            OTEL_EXPORTER_OTLP_ENDPOINT=received.endpoint,
            OTEL_PYTHON_FHIRPATH_BASELINE_RATE="0",
        )
    # Each a root of its own: the evaluations have no caller here.
    assert done.stderr.count('"name": "driver execute"') == 5
    assert done.stderr.count('"name": "SELECT Patient"') == 1


POLICY = """
class ManyResults:
    reason = "many_results"

    def matches(self, evaluation):
        return evaluation.result_count == 7

def broken():
    raise RuntimeError("CANARY")
"""


@pytest.fixture
def package(tmp_path):
    """The path of a package that offers a policy, and one that cannot be loaded."""
    (tmp_path / "clinic.py").write_text(POLICY)
    (tmp_path / "clinic-1.dist-info").mkdir()
    (tmp_path / "clinic-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: clinic\nVersion: 1\n"
    )
    (tmp_path / "clinic-1.dist-info" / "entry_points.txt").write_text(
        "[fhirpath_otel_policies]\nmany = clinic:ManyResults\nbroken = clinic:broken\n"
    )
    return tmp_path


def test_policies_of_other_packages_are_asked_by_the_recorder_and_at_the_door(work, package):
    more = """
for _ in range(3):
    evaluation = recorder.begin()
    evaluation.result_count, evaluation.resource_type = 7, "Patient"
    recorder.finish(evaluation)
    engine.start_span("many", attributes={**HASH, "fhirpath.result.count": 7}).end()
"""
    path = f"{os.environ.get('PYTHONPATH', '')}:{ROOT}:{package}"
    received, done = work(CONFIGURE, end=more + END, PYTHONPATH=path)
    assert received.counts(semconv.TRACES.name)["kept", "many_results"] == 6
    assert received.counts(semconv.LOST.name) == {("not_loaded", "policy"): 1}
    assert done.stderr == "the sampling policy 'broken' is not used: RuntimeError\n"
    assert text(received.spans()["many"], semconv.SAMPLING_REASON.name) == "many_results"

"""The collector's configuration, against the real collector: what passes, what is marked, what is kept."""

from __future__ import annotations

import json
import os
import re
import string
import subprocess
import sys

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from fhirpath_otel import population, semconv
from fhirpath_otel.analysis.analyser import gravest_first
from fhirpath_otel.analysis.rules import RULES, Record
from fhirpath_otel.analysis.thresholds import Thresholds
from fhirpath_otel.evaluator.model import load_model
from fhirpath_otel.evaluator.parser import parse
from fhirpath_otel.evaluator.template import expression_template
from fhirpath_otel.telemetry.spans import bottleneck_attributes
from tests.stack.clients import eventually
from tests.stack.collector import CONFIGURATION, command, running
from tests.stack.otlp import Backend, attributes, counter, metrics_request, plain, span, spans_request
from tools.stack.ports import free_ports

pytestmark = pytest.mark.stack

CANARY = "CANARY"
ENGINE = {"fhirpath.engine.name": "another_engine"}
KEPT = ENGINE | {"fhirpath.sampling.reason": "baseline"}

HIDDEN = {
    # Names that are not allowed, and those that the redaction processor would let through for itself.
    **dict.fromkeys(
        (CANARY, "patient.name", "db.query.text", "exception.message", "redaction.masked.keys"), CANARY
    ),
    # Values that are not what their names promise.
    "fhirpath.stage": CANARY,
    "fhirpath.expression.template": f"Peter {CANARY}, Hauptstrasse, HIV positiv",
    "fhirpath.expression.hash": CANARY,
    "fhirpath.expression.text": CANARY,
    "fhirpath.resource.type": f"{CANARY}_Peter_1970",
    "fhirpath.sampling.reason": CANARY,
    "fhirpath.bottleneck.rule": f"{CANARY}-1970",
    "reason": CANARY,
    "detail": CANARY,
    "db.operation.name": CANARY,
    "rpc.system": f"{CANARY}-1970-01-01",
    "fhirpath.result.count": CANARY,
    "fhirpath.bottleneck.rules": [CANARY.lower()],
    "fhirpath.bottleneck.advice": [f"do {CANARY}"],
    "fhirpath.engine.name": [CANARY],
    "fhirpath.operator.name": f"'{CANARY}'",
    "error.type": f"no {CANARY} here",
    "db.namespace": f"{CANARY}@host",
    "db.query.summary": f"SELECT {CANARY}.Peter_1970_01_01",
    "http.route": f"/Patient/{CANARY}1",
    "http.request.method": f"get {CANARY}",
    "messaging.system": {CANARY: CANARY},
    "rpc.service": CANARY.encode(),
    "rpc.method": CANARY.encode(),
    "server.port": CANARY,
    "thread.id": {"a": CANARY},
}

# Whole names, one by one, where only a list passes; and values that are too long, or have a date or a number in them.
ALSO_HIDDEN = (
    ("fhirpath.expression.template", f"{CANARY}, Peter"),
    ("fhirpath.expression.template", f"Patient.name.{CANARY}"),
    ("fhirpath.expression.template", f"Patient.name = %{CANARY}"),
    ("fhirpath.expression.template", f"Patient.name{CANARY}"),
    ("fhirpath.expression.template", f"{'+' * (1024 - len(CANARY))}{CANARY}"),
    ("fhirpath.expression.template", f"{CANARY}{'.name' * 204}"),
    *(
        (name, CANARY)
        for name in (
            *("fhirpath.operator.name", "fhirpath.engine.version", "fhirpath.fhir.version", "rpc.system"),
            *("http.request.method", "http.method", "http.scheme", "url.scheme", "faas.trigger"),
            *("network.protocol.name", "network.protocol.version", "network.transport", "network.type"),
            *("messaging.operation.type", "db.response.status_code"),
        )
    ),
    ("fhirpath.engine.version", f"1.0-{CANARY}"),
    ("error.type", f"{CANARY}+Peter"),
    ("error.type", f"{CANARY}-1970"),
    ("error.type", f"{CANARY}{'a' * 128}"),
    ("exception.type", f"{CANARY}_19700101"),
    ("rpc.service", f"1970.{CANARY}"),
    ("rpc.method", f"{CANARY}+"),
    ("code.function", f"{CANARY}>{CANARY}"),
    ("code.function.name", f"{CANARY} {CANARY}"),
    ("db.system", f"{CANARY}/x"),
    ("db.system.name", f"{CANARY}_Peter"),
    ("db.operation", f"{CANARY}1970"),
    ("db.collection.name", f"{CANARY}1970"),
    ("db.sql.table", f"{CANARY}/Peter"),
    ("db.namespace", f"{CANARY}/Peter"),
    ("db.query.summary", f"SELECT {CANARY}{'a' * 255}"),
    ("http.route", f"/{CANARY}/{'a' * 255}"),
    ("http.route", f"/Patient/:{CANARY}1970"),
    ("http.route", f"/Patient/{{{CANARY}1970}}"),
)


@pytest.fixture(scope="module")
def program(stack_programs):
    return stack_programs["otelcol"]


@pytest.fixture(scope="module")
def backend():
    made = Backend()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def collector(program, backend, tmp_path_factory):
    with running(program, tmp_path_factory.mktemp("collector"), backend, BASELINE_PERCENTAGE="0") as made:
        yield made


@pytest.mark.parametrize("overlay", [(), ("otelcol-mtls.yaml",), ("otelcol-backend-tls.yaml",)])
def test_the_configuration_is_valid(program, overlay):
    files = ("OTLP_TLS_CERT_FILE", "OTLP_TLS_KEY_FILE", "OTLP_CLIENT_CA_FILE")
    validated = subprocess.run(
        [program, "validate", *command(program, *(CONFIGURATION / name for name in overlay))[1:]],
        env=os.environ | dict.fromkeys(files, "/etc/hostname"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (validated.returncode, validated.stderr) == (0, "")


def test_jaegers_configuration_is_valid(stack_programs):
    validated = subprocess.run(
        [stack_programs["jaeger"], "validate", "--config", CONFIGURATION / "jaeger.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert validated.returncode == 0, validated.stderr


def hidden():
    return [*HIDDEN.items(), *ALSO_HIDDEN]


def secret_spans():
    """The secret in every place of a span; as errors, so that only redaction holds it back."""
    everywhere = {
        "status": Status(code=Status.STATUS_CODE_ERROR, message=CANARY),
        "trace_state": f"ot=th:8,vendor={CANARY}",
        "links": [
            Span.Link(
                trace_id=b"1" * 16,
                span_id=b"2" * 8,
                trace_state=f"v={CANARY}",
                attributes=span(named={"a": CANARY}).attributes,
            )
        ],
        "events": [
            Span.Event(name=CANARY, attributes=span(named={CANARY: CANARY}).attributes),
            Span.Event(
                name="exception",
                attributes=span(
                    named={
                        "exception.type": "ValueError",
                        "exception.message": CANARY,
                        "exception.stacktrace": CANARY,
                    }
                ).attributes,
            ),
        ],
    }
    # One by one, since the same names would hide one another, and all at once.
    one_by_one = [span(f"GET /Patient/{CANARY}", {name: item}, **everywhere) for name, item in hidden()]
    return [*one_by_one, span(f"SELECT '{CANARY}'", HIDDEN, **everywhere)]


def test_no_secret_leaves(collector, backend):
    spans = secret_spans()
    resource = {
        "host.name": f"{CANARY} h",
        "process.command_line": CANARY,
        CANARY: CANARY,
        "process.pid": CANARY,
    }
    for item in spans:
        collector.traces(
            spans_request(
                item,
                resource=resource,
                scope=f"a {CANARY}",
                scope_named={CANARY: CANARY},
                schema_url=f"x:{CANARY}",
            )
        )
    hiding = {
        "unit": f"u {CANARY}",
        "description": CANARY,
        "exemplar": {CANARY: CANARY},
    }
    for name, item in hidden():
        collector.metrics(
            metrics_request(
                counter("http.requests", {name: item}, **hiding),
                resource=resource,
                scope=f"b {CANARY}",
                scope_named={CANARY: CANARY},
            )
        )
    versioned = metrics_request(counter("of.versions", {}, unit=f"{CANARY}1970"))
    versioned.resource_metrics[0].scope_metrics[0].scope.version = f"1.0-{CANARY}"
    collector.metrics(versioned)
    pretending = counter("of.ours", {}, description=f"patients like {CANARY}")
    collector.metrics(metrics_request(pretending, scope="fhirpath_otel"))
    named = [counter(f"of{between}{CANARY}{end}", {}) for between, end in ((" ", ""), (".", "_19700101"))]
    collector.metrics(metrics_request(*named, counter("of.others", {})))
    eventually(lambda: {item.span_id for item in spans} <= backend.by_id().keys())
    arrived = [backend.by_id()[item.span_id] for item in spans]
    eventually(lambda: collector.series("of_others_total"))
    told = [str(backend.requests), *map(collector.get, ("OTELCOL_METRICS_PORT", "OTELCOL_TELEMETRY_PORT"))]
    assert [text.count(CANARY) for text in [*told, collector.log()]] == [0, 0, 0, 0]
    assert {item.name for item in arrived} == {"span"}
    assert {item.trace_state for item in arrived} == {"ot=th:8"}
    assert {tuple(event.name for event in item.events) for item in arrived} == {("other", "exception")}
    assert plain(arrived[0].events[1].attributes) == {"exception.type": "ValueError"}
    assert {item.status.code for item in arrived} == {Status.STATUS_CODE_ERROR}


def told_open():
    """The attributes of which the documentation tells that a patient's name passes there."""
    text = (CONFIGURATION.parent / "docs" / "stack.md").read_text(encoding="utf-8")
    section = text.partition("**What it cannot see**")[2].partition("## ")[0].partition("Numbers of spans")[0]
    return set(re.findall("`([a-z._]+)`", section)) & semconv.HARMLESS_ATTRIBUTES


def test_a_name_passes_where_the_documentation_tells_and_nowhere_else(collector, backend):
    everywhere = dict.fromkeys(semconv.HARMLESS_ATTRIBUTES, "Mueller")
    in_text = {"db.query.summary": "SELECT Mueller", "http.route": "/Patient/Mueller"}
    resource = {"service.name": "Mueller 1970-01-01", "host.name": "1970-01-01"}
    sent = span(named=everywhere | in_text)
    collector.traces(spans_request(sent, resource=resource))
    arrived = eventually(lambda: backend.by_id().get(sent.span_id))
    assert plain(arrived.attributes).keys() == told_open()
    assert resource in [
        plain(item.resource.attributes) for request in backend.requests for item in request.resource_spans
    ]
    collector.metrics(metrics_request(counter("of.Mueller", everywhere | in_text, unit="{Mueller}")))
    told = {name.replace(".", "_") for name in told_open() - {"db.query.summary"}}
    assert labels(collector, "of_Mueller").keys() == told


SCOPES = {
    "@opentelemetry/instrumentation-http": True,
    "io.opentelemetry.jetty-8.0": True,
    "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp": True,
    "opentelemetry.instrumentation.psycopg2": True,
    "a" * 128: True,
    "a" * 129: False,
    f"{CANARY}_19700101": False,
    f"{CANARY}, Peter": False,
    f"{CANARY}+Peter": False,
    f"1970.{CANARY}": False,
}


def test_scopes_pass_as_libraries_are_called(collector, backend):
    sent = {scope: span(named=KEPT) for scope in SCOPES}
    for scope, item in sent.items():
        collector.traces(spans_request(item, scope=scope))
        collector.metrics(metrics_request(counter("of.scopes", {"http.route": "/"}), scope=scope))
    eventually(lambda: {item.span_id for item in sent.values()} <= backend.by_id().keys())
    lines = eventually(lambda: collector.series("of_scopes_total"))
    expected = {scope if passes else "other" for scope, passes in SCOPES.items()}
    assert {re.search('otel_scope_name="([^"]*)"', line)[1] for line in lines} == expected
    arrived = {
        item.span_id: scope.scope.name
        for request in backend.requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for item in scope.spans
    }
    assert {scope: arrived[item.span_id] for scope, item in sent.items()} == {
        scope: scope if passes else "other" for scope, passes in SCOPES.items()
    }


RANGES = {
    "http.response.status_code": (100, 599),
    "http.status_code": (100, 599),
    "rpc.grpc.status_code": (0, 16),
    "server.port": (1, 65_535),
    "net.peer.port": (1, 65_535),
}
SPAN_RANGES = RANGES | {
    "code.lineno": (0, 999_999),
    "code.line.number": (0, 999_999),
    "thread.id": (0, None),
    "db.response.returned_rows": (0, None),
    "db.operation.batch.size": (0, None),
}


def test_numbers_pass_within_their_ranges(collector, backend):
    within = [
        {name: item for name, limits in SPAN_RANGES.items() if (item := limits[end]) is not None}
        for end in (0, 1)
    ]
    beyond = {name: most + 1 for name, (_, most) in SPAN_RANGES.items() if most is not None}
    below = {name: least - 1 for name, (least, _) in SPAN_RANGES.items()}
    sent = [span(named=KEPT | named) for named in (*within, below, beyond, {"server.port": 443.0})]
    collector.traces(spans_request(*sent))
    eventually(lambda: {item.span_id for item in sent} <= backend.by_id().keys())
    arrived = [plain(backend.by_id()[item.span_id].attributes) for item in sent]
    assert arrived == [KEPT | within[0], KEPT | within[1], KEPT, KEPT, KEPT]


def labels(collector, name):
    """What the one series of a metric is labelled with, beside where it comes from."""
    (line,) = eventually(lambda: collector.series(f"{name}_total{{"))
    pairs = re.findall('([a-z_]+)="([^"]*)"', line.partition("}")[0])
    return {
        label: item for label, item in pairs if not label.startswith(("otel_", "service_", "job", "instance"))
    }


def test_numbers_label_points_where_they_have_few_values(collector):
    for end, (metric, expected) in enumerate((("of.least", "{0}"), ("of.most", "{1}"))):
        named = {name: 7 if limits[end] is None else limits[end] for name, limits in SPAN_RANGES.items()}
        collector.metrics(metrics_request(counter(metric, named)))
        assert labels(collector, metric.replace(".", "_")) == {
            name.replace(".", "_"): expected.format(*limits) for name, limits in RANGES.items()
        }
    for metric, step in (("of.less", -1), ("of.more", 1)):
        named = {name: limits[max(step, 0)] + step for name, limits in RANGES.items()}
        collector.metrics(metrics_request(counter(metric, named)))
        assert labels(collector, metric.replace(".", "_")) == {}


CAPS = {
    "error.type": 128,
    "rpc.service": 128,
    "code.function": 128,
    "db.collection.name": 128,
    "http.route": 255,
}


def test_what_passes_has_a_longest_length(collector, backend):
    texts = {
        name: "/" + "a" * (most - 1) if name == "http.route" else "a" * most for name, most in CAPS.items()
    }
    texts["db.query.summary"] = "SELECT " + "a" * 248
    sent = [span(named=KEPT | {name: item + more for name, item in texts.items()}) for more in ("", "a")]
    collector.traces(spans_request(*sent))
    eventually(lambda: {item.span_id for item in sent} <= backend.by_id().keys())
    arrived = [plain(backend.by_id()[item.span_id].attributes) for item in sent]
    assert arrived == [KEPT | texts, KEPT]


def test_lists_of_findings_are_no_longer_than_there_are_rules(collector, backend):
    each, more = list(semconv.RULES), [*semconv.RULES, semconv.RULES[0]]
    sent = [span(named=KEPT | {"fhirpath.bottleneck.rules": rules}) for rules in (each, more)]
    collector.traces(spans_request(*sent))
    eventually(lambda: {item.span_id for item in sent} <= backend.by_id().keys())
    arrived = [plain(backend.by_id()[item.span_id].attributes) for item in sent]
    assert arrived == [KEPT | {"fhirpath.bottleneck.rules": each}, KEPT]


def test_templates_that_are_cut_pass_without_the_name_at_the_end(collector, backend):
    terms = ["Patient.name.where(use = 'official').given"] * 40
    cut = {
        expression_template(parse(" and ".join([*["true"] * shift, *terms])), load_model()).text
        for shift in range(24)
    }
    assert {len(template) for template in cut} == {1024}
    assert {template[-1].isalnum() for template in cut} == {True, False}
    info = {template: span(named=KEPT | {"fhirpath.expression.template": template}) for template in cut}
    collector.traces(spans_request(*info.values()))
    eventually(lambda: {item.span_id for item in info.values()} <= backend.by_id().keys())
    for template, item in info.items():
        arrived = plain(backend.by_id()[item.span_id].attributes)["fhirpath.expression.template"]
        assert arrived == template.rstrip(string.ascii_letters)


@pytest.mark.parametrize("escaped", [True, "False"])
def test_events_tell_whether_an_exception_left_the_span(collector, backend, escaped):
    named = {"exception.type": "ValueError", "exception.escaped": escaped}
    sent = span(named=KEPT, events=[Span.Event(name="exception", attributes=attributes(named))])
    collector.traces(spans_request(sent))
    arrived = eventually(lambda: backend.by_id().get(sent.span_id))
    assert plain(arrived.events[0].attributes) == named


def twice(name, first, second):
    """An attribute that comes twice, which OTLP can say though it must not."""
    return [*attributes({name: first}), *attributes({name: second})]


def test_no_secret_leaves_behind_a_harmless_value_of_the_same_name(collector, backend):
    doubled = {
        name: twice(name, first, f"PHI {CANARY}")
        for name, first in (
            ("error.type", "ValueError"),
            ("exception.type", "ValueError"),
            ("host.name", "host"),
            ("fhirpath.stage", "sql"),
        )
    }
    sent = span("x", KEPT, events=[Span.Event(name="exception", attributes=doubled["exception.type"])])
    sent.attributes.extend([*doubled["error.type"], *doubled["fhirpath.stage"]])
    traces = spans_request(sent)
    point = counter("of.doubles", {})
    point.sum.data_points[0].attributes.extend([*doubled["error.type"], *doubled["fhirpath.stage"]])
    metrics = metrics_request(point)
    for resource in (traces.resource_spans[0].resource, metrics.resource_metrics[0].resource):
        resource.attributes.extend(doubled["host.name"])
    collector.traces(traces)
    collector.metrics(metrics)
    eventually(lambda: sent.span_id in backend.by_id())
    eventually(lambda: collector.series("of_doubles_total"))
    told = [str(backend.requests), *map(collector.get, ("OTELCOL_METRICS_PORT", "OTELCOL_TELEMETRY_PORT"))]
    assert [text.count(CANARY) for text in [*told, collector.log()]] == [0, 0, 0, 0]
    assert plain(backend.by_id()[sent.span_id].attributes) == KEPT


EVALUATIONS = """
import json, sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

provider, local = TracerProvider(), InMemorySpanExporter()
for exporter in (OTLPSpanExporter(insecure=True), local):
    provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

import fhirpath_otel as fo

folder, expressions = sys.argv[1], json.loads(sys.argv[2])
with fo.connect(":memory:") as database:
    database.load(folder)
    for expression in expressions:
        for mode in ("sql", "memory"):
            try:
                list(database.evaluate(expression, mode=mode))
            except fo.errors.FhirpathOtelError:
                pass
fo.flush()
print(json.dumps([
    [f"{span.context.span_id:016x}", span.name, span.status.status_code.name, json.loads(span.to_json())["attributes"]]
    for span in local.get_finished_spans()
]))
"""
EXPRESSIONS = (
    "Patient.name.where(use = 'official').given.first()",
    "Patient.name[0].given",
    "Patient.name.given & `back-tick` & '@'",
    "Patient.birthDate > @1970-01-01 and 1 'mg' < 2.5 'mg'",
    "Patient.contact.telecom.select(value.toInteger() + 12).exists($this > 3)",
    "Patient.extension('http://example.org/2').value.ofType(Quantity).value / 0",
    "Patient.name.given.trace('secret').count() div 2 - -3",
    "Patient.nonsense.unknown(%mine, %context)",
    "Patient.name.where(",
    "Observation.value.as(Quantity).value",
)


def test_what_our_own_recorder_sends_passes_as_it_is(collector, backend, tmp_path):
    population.write(tmp_path / "data", 20)
    done = subprocess.run(
        [sys.executable, "-c", EVALUATIONS, tmp_path / "data", json.dumps(EXPRESSIONS)],
        env=os.environ
        | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.ports['OTLP_GRPC_PORT']}",
            "OTEL_PYTHON_FHIRPATH_DETAIL": "operators",
            "OTEL_PYTHON_FHIRPATH_BASELINE_RATE": "1",
        },
        check=True,
        capture_output=True,
        text=True,
    )
    sent = {bytes.fromhex(identity): rest for identity, *rest in json.loads(done.stdout)}
    eventually(lambda: sent.keys() <= backend.by_id().keys())
    arrived = {identity: backend.by_id()[identity] for identity in sent}
    assert {
        identity: [item.name, ("UNSET", "OK", "ERROR")[item.status.code], plain(item.attributes)]
        for identity, item in arrived.items()
    } == sent
    names = {name for name, *_ in sent.values()}
    assert {
        "fhirpath evaluate Patient",
        "SELECT Patient",
        "fhirpath parse",
        "fhirpath where",
        "fhirpath []",
    } <= names


def marked_by_python(seconds, named):
    """What our own rules say of an evaluation with these attributes, which is not the first of its expression."""
    stages = {
        name.removeprefix("fhirpath.stage.").removesuffix(".duration"): item
        for name, item in named.items()
        if name.startswith("fhirpath.stage.")
    }
    position = named.get("fhirpath.fallback.position")
    obstacle = None if position is None else (position, position + 1)
    record = Record(duration=seconds, stages=stages, obstacle=obstacle)
    found = [rule(record, Thresholds()) for rule in RULES]
    marks = bottleneck_attributes(gravest_first(finding for finding in found if finding is not None))
    return {
        attribute.name: list(item) if isinstance(item, tuple) else item for attribute, item in marks.items()
    }


def stage(name):
    return f"fhirpath.stage.{name}.duration"


JUDGED = {
    "dominated by parsing": (0.1, {stage("parse"): 0.06}),
    "just not dominated": (0.1, {stage("parse"): 0.04}),
    "little to save": (0.005, {stage("parse"): 0.003}),
    "below the floor": (0.0009, {stage("parse"): 0.0008}),
    "much to save": (2.0, {stage("type_check"): 1.5}),
    "whole seconds": (2.5, {stage("parse"): 2}),
    "both stages": (0.1, {stage("parse"): 0.041, stage("type_check"): 0.05}),
    "fallen back": (0.05, {stage("in_memory"): 0.02, "fhirpath.fallback.position": 3}),
    "in memory by choice": (0.05, {stage("in_memory"): 0.02}),
    "all three": (
        0.1,
        {stage("parse"): 0.041, stage("type_check"): 0.042, stage("in_memory"): 0.05}
        | {"fhirpath.fallback.position": 0},
    ),
    "equal": (0.1, {stage("parse"): 0.045, stage("type_check"): 0.045}),
    "nothing told": (0.1, {}),
}


def test_rules_mark_spans_of_any_engine_as_ours_would(program, tmp_path):
    backend = Backend()
    with running(program, tmp_path, backend, BASELINE_PERCENTAGE="100") as collector:
        sent = {
            case: span(case, ENGINE | named, seconds=seconds) for case, (seconds, named) in JUDGED.items()
        }
        collector.traces(spans_request(*sent.values()))
        arrived = eventually(lambda: len(backend.spans) == len(sent) and backend.by_id())
    backend.stop()
    marks = {
        case: {
            name: item
            for name, item in plain(arrived[item.span_id].attributes).items()
            if name.startswith("fhirpath.bottleneck.")
        }
        for case, item in sent.items()
    }
    assert marks == {case: marked_by_python(*judged) for case, judged in JUDGED.items()}


def test_what_was_judged_or_failed_is_not_marked(program, tmp_path):
    parse = {stage("parse"): 0.09}
    marked = {"fhirpath.bottleneck.rule": "n-plus-one", "fhirpath.bottleneck.severity": "info"}
    cases = [KEPT, ENGINE | marked, ENGINE | {"error.type": "ValueError"}]
    backend = Backend()
    with running(program, tmp_path, backend, BASELINE_PERCENTAGE="100") as collector:
        sent = [span("x", parse | named, seconds=0.1) for named in cases]
        collector.traces(spans_request(*sent))
        arrived = eventually(lambda: len(backend.spans) == len(sent) and backend.by_id())
    backend.stop()
    for item in sent:
        assert plain(arrived[item.span_id].attributes) == plain(item.attributes)


def test_the_tail_sampler_keeps_what_tells_something(collector, backend):
    late = b"late" * 4
    beside = b"side" * 4
    kept = {
        "error": span(status=Status(code=Status.STATUS_CODE_ERROR)),
        "error by type": span(named={"error.type": "TimeoutError"}),
        "slow": span(seconds=1.1),
        "bottleneck": span(named=ENGINE | {stage("parse"): 0.06}, seconds=0.1),
        "beside a kept evaluation": span(named={"http.request.method": "GET"}, trace_id=beside),
        "kept by the application": span(named=KEPT, trace_id=beside),
    }
    dropped = {
        "ordinary": span(named=ENGINE),
        "little to save": span(named=ENGINE | {stage("parse"): 0.003}, seconds=0.005),
        "decided upon before": span(named={"http.request.method": "GET"}, trace_id=late),
    }
    collector.traces(spans_request(*kept.values(), *dropped.values()))
    eventually(lambda: all(item.span_id in backend.by_id() for item in kept.values()))
    # Its trace was not worth keeping then; the stage tells no reason, but its scope is our recorder's.
    evaluation = [span(named=KEPT, trace_id=late), span(named={"fhirpath.stage": "sql"}, trace_id=late)]
    collector.traces(spans_request(*evaluation, scope="fhirpath_otel"))
    eventually(lambda: all(item.span_id in backend.by_id() for item in evaluation))
    ids = [item.span_id for item in backend.spans]
    assert not {item.span_id for item in dropped.values()} & set(ids)
    assert len(ids) == len(set(ids)), "each span leaves once"


def test_metrics_of_spans_count_by_weight(collector):
    weighted = [span("x", KEPT, trace_state="vendor=1,ot=th:c") for _ in range(100)]
    collector.traces(spans_request(*weighted, resource={"service.name": "weighted"}))

    def calls():
        lines = collector.series("traces_span_metrics_calls_total")
        return [line.split("} ")[1].split()[0] for line in lines if 'service_name="weighted"' in line]

    # The first time a series is told it is 0, so that its increase is seen.
    assert eventually(lambda: [float(item) for item in calls() if float(item)]) == [400.0]


def test_instances_without_a_name_do_not_overwrite_each_other(collector):
    for process in (1, 2):
        resource = {
            "service.name": "fleet",
            "service.version": "1.2",
            "host.name": "h",
            "process.pid": process,
        }
        collector.metrics(
            metrics_request(counter("fhirpath.parser.cache.requests", {"result": "hit"}), resource=resource)
        )
    lines = eventually(
        lambda: [line for line in collector.series("fhirpath_parser_cache_requests_total") if "fleet" in line]
    )
    assert [
        f'instance="h:{process}"' in line for process, line in zip((1, 2), sorted(lines), strict=True)
    ] == [True] * 2
    assert all('service_name="fleet",service_version="1.2"' in line for line in lines)
    assert all(f'trace_id="{b"1".hex() * 16}"' in line for line in lines)


def test_dimensions_of_an_application_pass_where_they_are_named(program, tmp_path):
    backend, measure = Backend(), {"measure": "cms 122", "tenant": "a", "other": "b"}
    with running(program, tmp_path, backend, OTELCOL_DIMENSIONS='"measure", "tenant"') as collector:
        collector.traces(spans_request(span(named=KEPT | measure)))
        collector.metrics(metrics_request(counter("fhirpath.parser.cache.requests", measure)))
        eventually(lambda: backend.spans)
        (line,) = eventually(lambda: collector.series("fhirpath_parser_cache_requests_total{"))
    backend.stop()
    assert plain(backend.spans[0].attributes) == KEPT | {"measure": "cms 122", "tenant": "a"}
    assert 'measure="cms 122"' in line
    assert "other=" not in line


def test_the_expression_itself_passes_where_it_is_named_and_nothing_else_does(program, tmp_path):
    backend, text = Backend(), {"fhirpath.expression.text": "Patient.name = 'Peter Mueller, 1970-01-01'"}
    hidden = {"measure": "cms 122", "db.query.text": "SELECT 1", "error.type": "Peter Mueller"}
    with running(program, tmp_path, backend, OTELCOL_DIMENSIONS='"fhirpath.expression.text"') as collector:
        collector.traces(spans_request(span(named=KEPT | text | hidden)))
        eventually(lambda: backend.spans)
    backend.stop()
    assert plain(backend.spans[0].attributes) == KEPT | text


def test_a_batch_that_cannot_be_checked_is_refused(collector, backend):
    # Such a list has no JSON text, so that its check fails.
    unchecked = span(named=KEPT | {"fhirpath.bottleneck.rules": [float("nan")]})
    with pytest.raises(grpc.RpcError) as refused:
        collector.traces(spans_request(unchecked))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    following = span(named=KEPT)
    collector.traces(spans_request(following))
    eventually(lambda: following.span_id in backend.by_id())
    assert unchecked.span_id not in backend.by_id()


def test_what_was_kept_survives_an_outage_and_a_kill(program, tmp_path):
    backend = Backend()
    with running(program, tmp_path, backend) as collector:
        backend.stop()
        sent = [span(named=KEPT) for _ in range(500)]
        for item in sent:
            collector.traces(spans_request(item))
        collector.kill()
        back = Backend(backend.port)
        collector.start()
        eventually(lambda: {item.span_id for item in sent} <= back.by_id().keys())
    back.stop()


def certificates(folder):
    """An authority, and a key and a certificate for 127.0.0.1 that it has signed."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl(
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-subj",
        "/CN=ca",
    )
    openssl(
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "key.pem",
        "-out",
        "request.pem",
        "-subj",
        "/CN=one",
    )
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1", encoding="utf-8")
    openssl(
        *("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-out", "cert.pem", "-extfile", "names"),
    )
    return folder / "ca.pem", folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def certified(openssl, tmp_path_factory):
    return certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("empty", [False, True], ids=["unset", "empty"])
@pytest.mark.parametrize("missing", ["OTLP_TLS_CERT_FILE", "OTLP_TLS_KEY_FILE", "OTLP_CLIENT_CA_FILE"])
def test_nobody_is_heard_while_a_file_of_mutual_tls_is_not_told(program, certified, tmp_path, missing, empty):
    authority, certificate, key = certified
    files = {"OTLP_TLS_CERT_FILE": certificate, "OTLP_TLS_KEY_FILE": key, "OTLP_CLIENT_CA_FILE": authority}
    told = {name: str(path) for name, path in files.items() if name != missing}
    without = {name: text for name, text in os.environ.items() if name not in files}
    ended = subprocess.run(
        command(program, CONFIGURATION / "otelcol-mtls.yaml"),
        cwd=tmp_path,
        env=without
        | {name: str(port) for name, port in free_ports().items()}
        | {"OTELCOL_STORAGE": str(tmp_path / "queue")}
        | (told | {missing: ""} if empty else told),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode != 0
    assert "failed to load" in ended.stderr


def test_only_clients_with_a_certificate_are_heard_and_the_backend_is_told_who_we_are(
    program, certified, tmp_path
):
    authority, certificate, key = certified
    contents = [path.read_bytes() for path in (authority, key, certificate)]
    backend = Backend(
        credentials=grpc.ssl_server_credentials(
            [(contents[1], contents[2])], root_certificates=contents[0], require_client_auth=True
        )
    )
    variables = {
        "OTLP_TLS_CERT_FILE": certificate,
        "OTLP_TLS_KEY_FILE": key,
        "OTLP_CLIENT_CA_FILE": authority,
        "JAEGER_TLS_CA_FILE": authority,
        "JAEGER_TLS_CERT_FILE": certificate,
        "JAEGER_TLS_KEY_FILE": key,
        "JAEGER_AUTHORIZATION": "Bearer token",
    }
    overlays = [CONFIGURATION / name for name in ("otelcol-mtls.yaml", "otelcol-backend-tls.yaml")]
    texts = {name: str(item) for name, item in variables.items()}
    with running(program, tmp_path / "run", backend, *overlays, **texts) as collector:
        address = f"127.0.0.1:{collector.ports['OTLP_GRPC_PORT']}"
        unknown, known = span(named=KEPT), span(named=KEPT)
        with (
            grpc.secure_channel(address, grpc.ssl_channel_credentials(contents[0])) as channel,
            pytest.raises(grpc.RpcError),
        ):
            TraceServiceStub(channel).Export(spans_request(unknown), timeout=5)
        with pytest.raises(grpc.RpcError):
            collector.traces(spans_request(unknown), timeout=5)
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(*contents)) as channel:
            TraceServiceStub(channel).Export(spans_request(known), timeout=5)
        eventually(lambda: backend.spans)
        assert [item.span_id for item in backend.spans] == [known.span_id]
        assert {item["authorization"] for item in backend.metadata} == {"Bearer token"}
        assert "Bearer" not in collector.log()
    backend.stop()

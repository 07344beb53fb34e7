"""Which exporters the `OTEL_*` variables ask for, and what is said where one cannot be had."""

from __future__ import annotations

import logging

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk.trace.export import ConsoleSpanExporter

from fhirpath_otel import exporters
from fhirpath_otel.exporters import exporter_factories, requested

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}


def make_exporters(signal, environ):
    return [made for make in exporter_factories(signal, environ) if (made := make()) is not None]


@pytest.mark.parametrize(
    ("signal", "environ", "names"),
    [
        ("traces", {}, []),
        ("traces", {"OTEL_TRACES_EXPORTER": ""}, []),
        ("traces", {"OTEL_TRACES_EXPORTER": "otlp"}, ["otlp"]),
        ("traces", {"OTEL_TRACES_EXPORTER": " console, otlp ,console"}, ["console", "otlp"]),
        ("traces", ENDPOINT, ["otlp"]),
        ("metrics", ENDPOINT, ["otlp"]),
        ("metrics", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317"}, []),
        ("traces", {**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, []),
        ("traces", {**ENDPOINT, "OTEL_TRACES_EXPORTER": "console"}, ["console"]),
        ("traces", {"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, []),
    ],
)
def test_exporters_are_asked_for_by_name_or_by_an_endpoint(signal, environ, names):
    assert requested(signal, environ) == names


@pytest.mark.parametrize(
    ("signal", "environ", "made"),
    [
        ("traces", ENDPOINT, GrpcSpanExporter),
        ("traces", {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, GrpcSpanExporter),
        ("traces", {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, HttpSpanExporter),
        (
            "traces",
            {
                **ENDPOINT,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
            },
            GrpcSpanExporter,
        ),
        ("traces", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, HttpSpanExporter),
        ("metrics", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, HttpMetricExporter),
        (
            "traces",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            GrpcSpanExporter,
        ),
        ("traces", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:port"}, GrpcSpanExporter),
        ("traces", {"OTEL_TRACES_EXPORTER": "otlp_proto_http"}, HttpSpanExporter),
        ("traces", {"OTEL_TRACES_EXPORTER": "console"}, ConsoleSpanExporter),
    ],
)
def test_otlp_means_the_protocol_that_is_set_or_fits_the_endpoint(signal, environ, made):
    [exporter] = make_exporters(signal, environ)
    assert type(exporter) is made
    exporter.shutdown()


def warnings_of(caplog, signal, environ):
    with caplog.at_level(logging.WARNING, "fhirpath_otel"):
        made = make_exporters(signal, environ)
    return made, [record.getMessage() for record in caplog.records]


def test_a_name_that_nobody_offers_costs_one_warning_and_the_others_stay(caplog):
    made, said = warnings_of(caplog, "traces", {"OTEL_TRACES_EXPORTER": "zipkin,console"})
    assert [type(exporter) for exporter in made] == [ConsoleSpanExporter]
    [message] = said
    assert message == (
        "traces are not exported: no installed package offers 'zipkin'; set OTEL_TRACES_EXPORTER to otlp, console"
        " or none, or install one"
    )


def test_an_unknown_protocol_costs_one_warning(caplog):
    made, said = warnings_of(caplog, "metrics", {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})
    assert made == []
    assert said == [
        "metrics are not exported: OTEL_EXPORTER_OTLP_PROTOCOL='http/json' is not one of grpc, http/protobuf"
    ]


def test_without_the_otlp_packages_the_warning_says_what_to_install(caplog, monkeypatch):
    monkeypatch.setattr(exporters, "entry_points", lambda **_: [])
    made, said = warnings_of(caplog, "traces", ENDPOINT)
    assert made == []
    assert said == [
        "traces are not exported: OTLP needs another package; run: pip install 'fhirpath-otel[otlp]'"
    ]


def test_an_exporter_that_fails_is_named_without_its_message(caplog, monkeypatch):
    class Entry:
        def load(self):
            raise ValueError("CANARY-HEADER")

    monkeypatch.setattr(exporters, "entry_points", lambda **_: [Entry()])
    made, said = warnings_of(caplog, "traces", ENDPOINT)
    assert made == []
    assert said == [
        "traces are not exported: otlp_proto_grpc failed with ValueError; check the OTEL_EXPORTER_OTLP_… variables"
    ]
    assert "CANARY" not in caplog.text


@pytest.mark.parametrize("signal", ["traces", "metrics"])
def test_the_console_is_standard_error_because_standard_output_is_for_answers(signal, capsys):
    [made] = make_exporters(signal, {f"OTEL_{signal.upper()}_EXPORTER": "console"})
    made.out.write("told")
    assert capsys.readouterr() == ("", "told")

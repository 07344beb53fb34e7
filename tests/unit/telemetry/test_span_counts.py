"""What is counted outside of the recorder, also before there is somebody who counts."""

from __future__ import annotations

import logging

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from fhirpath_otel.telemetry.finding import Finding
from fhirpath_otel.telemetry.span_counts import SpanCounts

FINDING = Finding("n-plus-one", "warning", "sql", 0, 1, {}, 1.0, "Evaluate once.")


@pytest.fixture
def reader():
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader):
    return MeterProvider([reader], shutdown_on_exit=False)


@pytest.fixture
def counted(reader):
    def counted(name):
        data = reader.get_metrics_data()
        return {
            tuple(sorted(point.attributes.values())): point.value
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        }

    return counted


def test_decisions_findings_and_losses_are_counted_and_a_reason_is_said_once(
    monkeypatch, provider, counted, caplog
):
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    counts = SpanCounts(provider.get_meter("x"))
    with caplog.at_level(logging.DEBUG):
        counts.decided("kept", "slow")
        counts.found([FINDING, FINDING])
        counts.lost("span", "too_old", 3)
        counts.lost_all("span", {"too_old": 2, "ended_twice": 1})
        counts.lost("driver_span", "evaluation_dropped")
        counts.failed("span")
    assert counted("fhirpath.telemetry.traces") == {("kept", "slow"): 1}
    assert counted("fhirpath.bottleneck.findings") == {("n-plus-one", "sql", "warning"): 2}
    assert counted("fhirpath.telemetry.dropped") == {
        ("span", "too_old"): 5,
        ("ended_twice", "span"): 1,
        ("driver_span", "evaluation_dropped"): 1,
        ("internal_error", "span"): 1,
    }
    told = [record.getMessage().partition(";")[0] for record in caplog.records]
    assert told == [
        f"telemetry was lost (span: {reason})" for reason in ("too_old", "ended_twice", "internal_error")
    ]


def test_what_was_lost_before_there_was_a_provider_is_counted_afterwards(monkeypatch, provider, counted):
    class Proxy:
        __module__ = "opentelemetry.metrics._internal"

    current = Proxy()
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: current)
    counts = SpanCounts(provider.get_meter("x"))
    counts.count("policy", "not_loaded")
    counts.catch_up()
    assert counted("fhirpath.telemetry.dropped") == {}
    current = provider
    counts.catch_up()
    counts.catch_up()
    assert counted("fhirpath.telemetry.dropped") == {("not_loaded", "policy"): 1}

"""What of Prometheus' configuration can be checked without Prometheus: names, annotations, runbooks, tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from fhirpath_otel import semconv
from fhirpath_otel.analysis.thresholds import Thresholds
from fhirpath_otel.settings import Settings

ROOT = Path(__file__).parents[3]
CONFIGURATION = ROOT / "collector-config"
RUNBOOKS = ROOT / "docs" / "runbooks.md"


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


RULES = [
    rule
    for file in sorted((CONFIGURATION / "prometheus" / "rules").glob("*.yml"))
    for group in load(file)["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
TESTS = [
    (group["name"], case)
    for file in sorted((ROOT / "tests" / "stack" / "rules").glob("*.test.yml"))
    for group in load(file)["tests"]
    for case in group.get("alert_rule_test", ())
]

UNIT_SUFFIXES = {"s": "_seconds", "By": "_bytes"}
HISTOGRAM_SUFFIXES = ("_bucket", "_sum", "_count")
# What the programs of the stack say of themselves.
OWN_OF_PROGRAMS = {
    "up",
    "prometheus_rule_evaluation_failures_total",
    "prometheus_notifications_dropped_total",
    "prometheus_notifications_errors_total",
    "alertmanager_notifications_failed_total",
    "otelcol_exporter_queue_size",
    "otelcol_exporter_queue_capacity",
    *(
        f"otelcol_{name}{suffix}"
        for suffix in ("", "_total")
        for name in (
            "receiver_accepted_spans",
            "receiver_accepted_metric_points",
            "receiver_refused_spans",
            "receiver_refused_metric_points",
            "exporter_sent_spans",
            "exporter_send_failed_spans",
            "exporter_send_failed_metric_points",
            "exporter_enqueue_failed_spans",
            "processor_tail_sampling_sampling_trace_dropped_too_early",
        )
    ),
}
# Labels that the collector or Prometheus add to our metrics, and those of the programs' own.
ADDED_LABELS = {"service_name", "service_version", "instance", "job", "le"}
LABELS_OF_PROGRAMS = {"exporter", "receiver", "transport", "data_type", "rule_group"}
PROMQL_WORDS = {
    *("by", "on", "ignoring", "group_left", "and", "or", "unless", "offset"),
    *(
        "sum",
        "max",
        "count",
        "group",
        "topk",
        "rate",
        "increase",
        "vector",
        "scalar",
        "abs",
        "absent",
        "clamp_min",
    ),
    *("histogram_quantile", "quantile_over_time", "avg_over_time", "sum_over_time", "count_over_time"),
    *("stddev_over_time", "present_over_time", "last_over_time"),
}


def prometheus_names(metric):
    """A metric's names behind the collector's exporter (translation UnderscoreEscapingWithSuffixes)."""
    name = metric.name.replace(".", "_") + UNIT_SUFFIXES.get(metric.unit, "")
    if metric.instrument == "histogram":
        return {name + suffix for suffix in HISTOGRAM_SUFFIXES}
    if metric.instrument.endswith("counter") and "up-down" not in metric.instrument:
        return {name + "_total"}
    if metric.unit == "1":
        return {name.removesuffix("_ratio") + "_ratio"}
    return {name}


METRICS = {name: metric for metric in semconv.METRICS for name in prometheus_names(metric)}
ATTRIBUTES = [
    (attr.name.replace(".", "_"), attr.values) for metric in semconv.METRICS for attr in metric.attributes
]
LABELS = {name for name, _ in ATTRIBUTES}
VALUES = {
    label: {value for name, values in ATTRIBUTES if name == label for value in values} for label in LABELS
}
TARGETS = load(CONFIGURATION / "prometheus" / "targets" / "local.yml")
JOBS = {entry["labels"]["job"] for entry in TARGETS}
ADDRESS = re.compile(r"(?P<host>.+):(?P<port>\d+)")


def names_in(expression):
    """The metrics and recorded names that an expression reads."""
    bare = re.sub(r'"[^"]*"|\{[^{}]*\}|\[[^]]*\]', " ", re.sub(r"\{[^{}]*\}", " ", expression))
    bare = re.sub(r"\b(?:by|on|ignoring|group_left)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"\boffset\s+\w+", " ", bare)
    return set(re.findall(r"[a-zA-Z_][\w:]*", bare)) - PROMQL_WORDS


def labels_in(expression):
    """The labels that an expression groups or selects by."""
    groupings = re.findall(r"\b(?:by|on|ignoring|group_left)\s*\(([^)]*)\)", expression)
    selected = [label for label, *_ in matchers_in(expression)]
    return {label.strip() for group in groupings for label in group.split(",") if label.strip()} | set(
        selected
    )


def matchers_in(expression):
    return re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', expression)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("record") or rule["alert"])
def test_every_name_a_rule_reads_exists(rule):
    assert names_in(rule["expr"]) <= METRICS.keys() | OWN_OF_PROGRAMS | RECORDED.keys()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("record") or rule["alert"])
def test_every_label_and_its_values_exist(rule):
    assert labels_in(rule["expr"]) <= LABELS | ADDED_LABELS | LABELS_OF_PROGRAMS
    for label, _, value in matchers_in(rule["expr"]):
        known = JOBS if label == "job" else VALUES.get(label)
        if known and value:
            assert set(value.split("|")) <= known


def test_metrics_made_of_spans_are_for_jaeger_only():
    assert not [rule for rule in RULES if "traces_span_metrics" in rule["expr"]]


def test_a_rate_is_taken_before_a_sum():
    for rule in RULES:
        assert not re.search(r"(?:rate|increase)\s*\(\s*(?:sum|max|avg)\b", rule["expr"]), rule


def test_a_series_counts_from_its_first_value_on():
    bare = {
        "service:fhirpath_telemetry_overhead_ratio:max": "one export does not make a process busy",
        **dict.fromkeys((name for name in RECORDED if ":p95_30m" in name), "as the process warms up"),
        "service:fhirpath_anomaly:level": "as the process warms up",
    }
    for name in RECORDED.keys() - bare.keys():
        expression = " ".join(RECORDED[name].split())
        for taken, counter, window in re.findall(
            r"(rate|increase)\(((?:fhirpath|db)_[^\[]+)\[(\w+)]", expression
        ):
            now = counter if window == "5m" else f"last_over_time({counter}[{window}])"
            seconds = f" / {int(window[:-1]) * 60}" if taken == "rate" else ""
            assert (
                f"({now} unless {counter} offset {window}){seconds}"
                f" and on (job, instance) instance:fhirpath_new_series:bool{window}"
                f" or {taken}({counter}[{window}])"
            ) in expression, name


def test_the_boundary_of_the_objective_is_one_of_the_histogram():
    boundaries = [value for rule in RULES for label, _, value in matchers_in(rule["expr"]) if label == "le"]
    assert len(boundaries) == 1, "it is meant to stand in one place"
    assert boundaries[0] in {str(boundary) for boundary in semconv.DURATION_BOUNDARIES}


def test_a_stage_dominates_from_the_same_share_on_as_for_the_package():
    assert RECORDED["threshold:fhirpath_dominating_stage:ratio"] == f"vector({Thresholds().dominating_share})"


def test_telemetry_is_over_budget_from_the_same_ratio_on_as_for_the_package():
    assert RECORDED["threshold:fhirpath_overhead:ratio"] == f"vector({Settings().overhead_budget})"


def test_the_collector_keeps_traces_as_slow_as_the_package_does():
    configuration = (CONFIGURATION / "otelcol.yaml").read_text(encoding="utf-8")
    [milliseconds] = re.findall(r"env:SLOW_THRESHOLD_MS:-(\d+)", configuration)
    assert int(milliseconds) == Settings().slow_threshold * 1000


def test_every_threshold_is_compared_with():
    thresholds = {name for name in RECORDED if name.startswith(("threshold:", "objective:"))}
    used = {name for rule in RULES for name in names_in(rule["expr"])}
    assert thresholds <= used


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_is_and_where_help_stands(name):
    alert = ALERTS[name]
    assert alert["for"]
    assert alert["labels"]["severity"] in {"page", "warning", "info"}
    assert alert["labels"]["topic"] in {"latency", "errors", "telemetry", "stack"}
    assert {"summary", "description", "runbook_url"} == alert["annotations"].keys()
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks.md#{name.lower()}"
    assert f"\n## {name}\n" in RUNBOOKS.read_text(encoding="utf-8")


def test_no_runbook_is_about_an_alert_that_does_not_exist():
    sections = re.findall(r"^## (\w+)$", RUNBOOKS.read_text(encoding="utf-8"), re.MULTILINE)
    assert sections == list(ALERTS), "in the order of the alerts"


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_seen_to_fire_and_to_stay_silent(name):
    fired = {group.split(":")[0] for group, case in TESTS if case["alertname"] == name and case["exp_alerts"]}
    silent = {
        group.split(":")[0] for group, case in TESTS if case["alertname"] == name and not case["exp_alerts"]
    }
    assert "fault" in fired
    assert {"fault", "healthy", "no traffic", "restart"} <= silent


def test_compose_and_local_have_the_same_targets():
    local, compose = (
        [
            (entry["labels"]["job"], [ADDRESS.fullmatch(target)["port"] for target in entry["targets"]])
            for entry in targets
        ]
        for targets in (TARGETS, load(CONFIGURATION / "prometheus" / "targets" / "compose.yml"))
    )
    assert local == compose


def test_every_target_on_this_machine_is_on_loopback():
    assert {ADDRESS.fullmatch(target)["host"] for entry in TARGETS for target in entry["targets"]} == {
        "127.0.0.1"
    }


def test_alertmanager_routes_by_labels_that_alerts_have():
    configuration = load(CONFIGURATION / "alertmanager" / "alertmanager.yml")
    receivers = {receiver["name"] for receiver in configuration["receivers"]}
    assert configuration["route"]["receiver"] in receivers
    matchers = [
        matcher
        for rule in configuration["inhibit_rules"]
        for side in ("source_matchers", "target_matchers")
        for matcher in rule[side]
    ] + [matcher for route in configuration["route"]["routes"] for matcher in route["matchers"]]
    known = {
        "alertname": set(ALERTS),
        "severity": {alert["labels"]["severity"] for alert in ALERTS.values()},
        "topic": {alert["labels"]["topic"] for alert in ALERTS.values()},
    }
    for matcher in matchers:
        label, _, value = matchers_in(matcher)[0]
        assert set(value.split("|")) <= known[label]

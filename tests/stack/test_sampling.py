"""What sampling leaves: counts that can still be trusted, and other engines' traces that are worth keeping."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fhirpath_otel import population
from tests.stack import application
from tests.stack.clients import eventually

pytestmark = pytest.mark.stack

FOREIGN_ENGINE = Path(__file__).with_name("foreign_engine.py")
SIGMAS = 4
SHARE = 0.01
EVALUATIONS = 10_000
WINDOW_SECONDS = 600
FAILING = 20
ROOTS = 'traces_span_metrics_calls_total{service_name="weighed",span_name="fhirpath evaluate Patient"}'


@pytest.fixture(scope="module")
def weighed(stack, tmp_path_factory):
    """A service of 10,000 evaluations, a few of which fail; 1 % of the others is kept, nothing suppressed.

    No other reason keeps any: a machine that is busy for a moment makes many slow, and they share one account.
    In two halves: the Monitor shows rates, and there is none until Prometheus has seen the counts rise.
    """
    environment = stack.application_environment(
        "weighed",
        OTEL_PYTHON_FHIRPATH_BASELINE_RATE=str(SHARE),
        OTEL_PYTHON_FHIRPATH_MAX_TRACES_PER_SECOND="1000000",
        OTEL_PYTHON_FHIRPATH_OVERHEAD_BUDGET="1",
        OTEL_PYTHON_FHIRPATH_SLOW_THRESHOLD="3600",
        OTEL_PYTHON_FHIRPATH_MAX_EXPRESSIONS="0",
    )
    file = population.write(tmp_path_factory.mktemp("weighed"), 3)["Patient"]
    succeeding = ["Patient.id"] * (EVALUATIONS // FAILING - 1)
    with application.running(environment, file) as running:
        running.evaluate(*succeeding, "Patient.name.given.single()", times=FAILING // 2)
        eventually(lambda: len(stack.prometheus.query(ROOTS)) == 2)
        running.evaluate(*succeeding, "Patient.name.given.single()", times=FAILING // 2)
    eventually(lambda: own_count(stack, "fhirpath_evaluation_duration_seconds_count") == EVALUATIONS)


@pytest.fixture
def figures(record_property):
    """Writes a figure into the report of the run, and to standard output."""

    def write(text):
        record_property("figures", text)
        sys.stdout.write(f"\n{text}\n")

    return write


def own_count(stack, metric, of=""):
    return stack.prometheus.value(f'sum({metric}{{service_name="weighed"{of}}})') or 0


def test_spans_weigh_as_much_as_evaluations_that_our_own_metric_counts(stack, weighed, figures):
    traces = "fhirpath_telemetry_traces_total"
    assert own_count(stack, traces) == EVALUATIONS
    drawn = own_count(stack, traces, ',decision="kept",reason="baseline"')
    failed = own_count(stack, traces, ',decision="kept",reason="error"')
    # Where a parse, of which there is one an expression, was interrupted, its evaluation is kept as a bottleneck too.
    certain = own_count(stack, traces, ',decision="kept",reason!="baseline"')
    suppressed = own_count(stack, traces, ',decision="suppressed"')
    assert failed == FAILING
    assert certain <= FAILING + 2
    # The collector rounds a weight that is no whole number up or down by chance; 1 % is all but one.
    calls = eventually(
        lambda: (
            (counted := stack.prometheus.value(f"sum({ROOTS})"))
            and abs(counted - certain - drawn / SHARE) <= 1
            and counted
        )
    )
    deviation = math.sqrt((EVALUATIONS - certain) * SHARE * (1 - SHARE)) / SHARE
    figures(
        f"{calls:g} calls for {EVALUATIONS} evaluations, with a standard deviation of {deviation:.0f};"
        f" {drawn:g} traces drawn, {suppressed:g} more suppressed"
    )
    # Where another program takes the processor while a trace is made, that seems dear, and the next may be left out:
    # more of them on a machine with more to do, but never most.
    assert suppressed < drawn
    assert abs(calls + suppressed / SHARE - EVALUATIONS) <= SIGMAS * deviation


def monitored(stack, figure, **parameters):
    """The points that the Monitor draws of the evaluations, oldest first, without those that say nothing."""
    metrics = stack.jaeger.monitor(
        figure,
        "weighed",
        spanKind="internal",
        groupByOperation="true",
        endTs=int(time.time() * 1000),
        lookback=WINDOW_SECONDS * 1000,
        step=5_000,
        ratePer=WINDOW_SECONDS * 1000,
        **parameters,
    )
    values = [
        point["gaugeValue"]["doubleValue"]
        for metric in metrics
        if {"name": "operation", "value": "fhirpath evaluate Patient"} in metric["labels"]
        for point in metric["metricPoints"]
    ]
    return [value for value in values if value not in {0, "NaN"}]


def test_jaegers_monitor_shows_them(stack, weighed):
    def rise():
        """The evaluations between the first scrape and the last, which is the second half at least."""
        calls = monitored(stack, "calls")
        return calls and calls[-1] * WINDOW_SECONDS >= 0.2 * EVALUATIONS and calls[-1] * WINDOW_SECONDS

    assert eventually(rise) <= 1.5 * EVALUATIONS
    assert 0 < monitored(stack, "errors")[-1] < 0.1
    # Its pages take what they are given for milliseconds, and show two places of that.
    latency = monitored(stack, "latencies", quantile=0.95)[-1]
    counted = stack.prometheus.value(
        'histogram_quantile(0.95, sum by (le) (fhirpath_evaluation_duration_seconds_bucket{service_name="weighed"}))'
    )
    assert counted * 1000 / 10 < latency < counted * 1000 * 10


@pytest.fixture(scope="module")
def foreign(stack):
    """The trace ids of a program that knows nothing of us."""
    ended = subprocess.run(
        [sys.executable, FOREIGN_ENGINE],
        env=stack.application_environment("ward"),
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(ended.stdout)


def test_the_collector_flags_bottlenecks_of_engines_that_know_nothing_of_us(stack, foreign):
    for rule, trace_id in foreign["troubled"].items():
        trace = eventually(lambda of=trace_id: stack.jaeger.trace(of))
        root = next(span for span in trace if span.parent_id is None)
        assert root.attributes["fhirpath.bottleneck.rule"] == rule
        assert root.attributes["fhirpath.bottleneck.severity"] == "warning"
        assert len(trace) == 2, "a trace is kept whole"


def test_healthy_traces_of_theirs_are_kept_by_the_baseline_only(stack, foreign):
    share, sent = 0.05, len(foreign["healthy"])
    deviation = math.sqrt(sent * share * (1 - share))
    for trace_id in foreign["troubled"].values():
        eventually(lambda of=trace_id: stack.jaeger.trace(of))

    def kept():
        found = {trace[0].trace_id for trace in stack.jaeger.traces("ward")} & set(foreign["healthy"])
        return len(found) >= sent * share - SIGMAS * deviation and found

    assert len(eventually(kept)) <= sent * share + SIGMAS * deviation

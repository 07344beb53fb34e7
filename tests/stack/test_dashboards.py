"""Every query of every dashboard yields series, while an application runs that does what they show."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("grafana_foundation_sdk", reason="needs Python 3.11")

from tests.stack.clients import eventually
from tools.build_dashboards import asked
from tools.dashboards.promql import alone

pytestmark = pytest.mark.stack

APPLICATION = Path(__file__).parent / "shown_on_dashboards.py"
SERVICE = "shown-on-dashboards"
# Scrapes and exports come every second here; the time shown has to reach back to the first of both.
QUERIES = asked(interval="10s", span="5m")


@pytest.fixture(scope="module")
def application(stack, tmp_path_factory):
    """Runs for as long as the queries are asked."""
    environment = stack.application_environment(
        SERVICE,
        OTEL_RESOURCE_ATTRIBUTES="service.version=1.0",
        OTEL_METRIC_EXPORT_INTERVAL="1000",
        PYTHONPATH=str(Path(__file__).parents[2]),
    )
    folder = tmp_path_factory.mktemp("application")
    with subprocess.Popen([sys.executable, APPLICATION, folder], env=environment) as process:
        yield process
        process.terminate()


@pytest.mark.parametrize(
    "query", QUERIES, ids=[f"{number}-{entry['dashboard']}" for number, entry in enumerate(QUERIES)]
)
def test_a_query_of_a_dashboard_yields_series(stack, application, query):
    assert eventually(lambda: stack.prometheus.query(query["query"])), query


# There is no such series before the fault that it counts: here is none.
OF_FAULTS = re.compile(
    r"ALERTS\{|up == 0|db_client_operation_duration_seconds_count\{[^}]*error_type"
    r"|otelcol_exporter_(enqueue|send)_failed_|fhirpath_telemetry_dropped_total"
)
ALONE = sorted({side.strip() for entry in QUERIES for side in alone(entry["query"])})
SEEN = [query for query in ALONE if not OF_FAULTS.search(query)]


@pytest.mark.parametrize("query", SEEN, ids=range(len(SEEN)))
def test_what_a_zero_could_stand_in_for_yields_series_too(stack, application, query):
    assert eventually(lambda: stack.prometheus.query(query)), query


def test_the_collector_counts_faults_by_the_names_that_are_asked_for(stack_programs):
    names = set(re.findall(r"\b(otelcol_\w+)_total\b", " ".join(set(ALONE) - set(SEEN))))
    code = stack_programs["otelcol"].read_bytes()
    assert names
    assert not [name for name in names if name.encode() not in code]


def test_an_exemplar_of_a_percentile_leads_to_a_trace(stack, application):
    percentile = next(entry["query"] for entry in QUERIES if entry["panel"] == "Percentiles of the duration")

    def trace():
        exemplars = stack.prometheus.exemplars(percentile)
        assert exemplars
        return stack.jaeger.trace(exemplars[-1]["labels"]["trace_id"])

    assert SERVICE in {span.service for span in eventually(trace)}

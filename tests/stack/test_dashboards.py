"""Every query of every dashboard yields series, while an application runs that does what they show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("grafana_foundation_sdk", reason="needs Python 3.11")

from tests.stack.clients import eventually
from tools.build_dashboards import asked

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


def test_an_exemplar_of_a_percentile_leads_to_a_trace(stack, application):
    percentile = next(entry["query"] for entry in QUERIES if entry["panel"] == "Percentiles of the duration")

    def trace():
        exemplars = stack.prometheus.exemplars(percentile)
        assert exemplars
        return stack.jaeger.trace(exemplars[-1]["labels"]["trace_id"])

    assert SERVICE in {span.service for span in eventually(trace)}

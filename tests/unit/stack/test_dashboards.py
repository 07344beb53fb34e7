"""Dashboards as they are checked in: what the tool builds, told well, and asking for what is really emitted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fhirpath_otel import semconv

pytest.importorskip("grafana_foundation_sdk", reason="needs Python 3.11")

from tools import build_dashboards
from tools.build_dashboards import FOLDER, PAGES, asked, files
from tools.dashboards import promql
from tools.dashboards.panels import Chart, Dashboard, Heatmap, Query, Row, Table, built

PROVISIONING = FOLDER.parent / "provisioning"
OTHERS_SERIES = re.compile(r"otelcol_\w+|up|scrape_\w+|ALERTS")
SELECTED = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{")


def our_series():
    for metric in semconv.METRICS:
        name = promql.series(metric)
        yield from (f"{name}_{part}" for part in ("bucket", "sum", "count")) if metric.boundaries else [name]


@pytest.mark.parametrize("name", sorted(files()))
def test_what_is_checked_in_is_what_is_built(name):
    assert (FOLDER / name).read_text(encoding="utf-8") == files()[name], "run tools/build_dashboards.py"


def test_no_other_dashboard_is_checked_in():
    assert {path.name for path in FOLDER.iterdir()} == set(files())


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (semconv.EVALUATION_DURATION, "fhirpath_evaluation_duration_seconds"),
        (semconv.PARSER_CACHE_REQUESTS, "fhirpath_parser_cache_requests_total"),
        (semconv.EVALUATION_ACTIVE, "fhirpath_evaluation_active"),
        (semconv.PROCESS_MEMORY_USAGE, "process_memory_usage_bytes"),
        (semconv.OVERHEAD_RATIO, "fhirpath_telemetry_overhead_ratio"),
        (semconv.EXPRESSION_INFO, "fhirpath_expression_info_ratio"),
        (semconv.DETAIL_INTERVAL, "fhirpath_telemetry_detail_interval"),
        (semconv.RESULT_COUNT, "fhirpath_result_count"),
    ],
)
def test_names_are_those_that_the_collector_gave_them_in_prometheus(metric, name):
    assert promql.series(metric) == name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.uid)
def test_every_panel_says_what_it_answers(page):
    assert page.description
    for panel in page.panels:
        assert panel.unit, panel.title
        assert len(panel.description) > 40 or "?" in panel.description, panel.title
    titles = [panel.title for panel in page.panels]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.uid)
def test_panels_fill_rows_without_overlapping(page):
    taken = set()
    for panel in json.loads(files()[f"{page.uid}.json"])["panels"]:
        place = panel["gridPos"]
        assert place.get("x", 0) + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place.get("x", 0), place.get("x", 0) + place["w"])
            for y in range(place.get("y", 0), place.get("y", 0) + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.uid)
def test_panels_and_rows_have_identities_of_their_own(page):
    identities = [panel["id"] for panel in json.loads(files()[f"{page.uid}.json"])["panels"]]
    assert len(identities) == len(set(identities))


def test_queries_ask_only_for_series_that_exist():
    known = set(our_series())
    for entry in asked():
        for name in SELECTED.findall(re.sub(r'"[^"]*"', "", entry["query"])):
            assert name in known or OTHERS_SERIES.fullmatch(name), entry


def test_every_metric_is_shown_somewhere():
    everything = " ".join(entry["query"] for entry in asked())
    unseen = {metric.name for metric in semconv.METRICS if promql.series(metric) not in everything}
    assert unseen == set()


def test_nothing_is_made_of_spans():
    assert "traces_span_metrics" not in "".join(files().values())


def test_rates_are_taken_before_sums():
    for entry in asked():
        assert not re.search(r"(rate|increase)\(\s*sum", entry["query"]), entry


def test_no_variable_is_left_in_an_example():
    assert [entry for entry in asked() if "$" in entry["query"]] == []


def test_examples_take_the_intervals_that_they_are_given():
    assert (
        promql.example("rate(a[$__rate_interval]) + b[$__range]", interval="4s", span="9s")
        == "rate(a[4s]) + b[9s]"
    )
    assert promql.example('a{b=~"$service",c=~"${version}"}') == 'a{b=~".*",c=~".*"}'


def test_what_stands_before_an_or_can_be_asked_alone():
    assert promql.alone("topk(2, sum by (a, b) (c) or 0 * d) or (e or vector(0)) / f") == [
        " sum by (a, b) (c)",
        "topk(2, sum by (a, b) (c) or 0 * d)",
        "e",
    ]


def test_exemplars_are_asked_for_where_a_latency_is_shown():
    with_exemplars = {
        panel.title
        for page in PAGES
        for panel in page.panels
        if any(query.exemplars for query in panel.queries)
    }
    assert {"Percentiles of the duration", "Duration of all evaluations", "p99 by stage"} <= with_exemplars


def test_exemplars_link_to_jaeger():
    sources = yaml.safe_load((PROVISIONING / "datasources" / "datasources.yaml").read_text())["datasources"]
    by_uid = {source["uid"]: source for source in sources}
    prometheus = by_uid["prometheus"]["jsonData"]
    destinations = prometheus["exemplarTraceIdDestinations"]
    assert {destination["name"] for destination in destinations} == {"trace_id"}
    assert by_uid[next(d["datasourceUid"] for d in destinations if "datasourceUid" in d)]["type"] == "jaeger"
    assert prometheus["alertmanagerUid"] in by_uid
    assert by_uid["jaeger"]["jsonData"]["tracesToMetrics"]["datasourceUid"] in by_uid
    assert not any(source["editable"] for source in sources)


def test_spans_link_to_series_that_exist():
    sources = yaml.safe_load((PROVISIONING / "datasources" / "datasources.yaml").read_text())["datasources"]
    jaeger = next(source["jsonData"]["tracesToMetrics"] for source in sources if source["uid"] == "jaeger")
    for query in jaeger["queries"]:
        assert set(re.findall(r"\bfhirpath_\w+", query["query"])) <= set(our_series())
    names = {attribute.name for attribute in semconv.SPAN_ATTRIBUTES}
    assert {tag["key"] for tag in jaeger["tags"] if tag["key"].startswith("fhirpath.")} <= names


def test_a_page_becomes_panels_of_grafana():
    chart = Chart("c", "why", (Query("up", "{{job}}"),), "s", limits=(1, 2), stacked=True)
    heat = Heatmap("h", "why", (Query("up", exemplars=True),), "s")
    table = Table("t", "why", (Query("a", "A", unit="s"), Query("b", "B")), "short", hidden=("le",))
    page = built(Dashboard("u", "T", "D", (), (Row("R", (chart, heat, table)),)))
    row, *panels = json.loads(json.dumps(page, cls=build_dashboards.JSONEncoder))["panels"]
    assert row["type"] == "row"
    assert [panel["type"] for panel in panels] == ["timeseries", "heatmap", "table"]
    steps = panels[0]["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(step["value"], step["color"]) for step in steps] == [(None, "green"), (1, "yellow"), (2, "red")]
    assert panels[1]["targets"][0]["exemplar"]
    organised = panels[2]["transformations"][1]["options"]
    assert organised == {
        "excludeByName": {"Time": True, "le": True},
        "renameByName": {"Value #A": "A", "Value #B": "B"},
    }


def test_the_command_line_prints_the_queries():
    command = [sys.executable, build_dashboards.__file__, "--queries", "--json", "--interval", "7s"]
    environment = {"PYTHONPATH": str(Path(build_dashboards.__file__).parents[1])}
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert json.loads(printed.stdout) == asked(interval="7s")

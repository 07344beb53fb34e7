"""What the bottleneck rules found."""

from __future__ import annotations

from fhirpath_otel import semconv
from tools.dashboards.panels import Chart, Dashboard, Query, Row, Table
from tools.dashboards.promql import (
    EVALUATIONS,
    GRAVE,
    SERVICE,
    VERSION,
    increase,
    legend,
    or_none,
    rate,
    series,
    share,
)
from tools.dashboards.variables import EVALUATION_VARIABLES

FINDINGS = series(semconv.FINDINGS)
ALL = rate(f"{EVALUATIONS}_count")

OVER_TIME = (
    Chart(
        "Findings by rule",
        "What do the rules find? docs/rules.md tells of each rule what it costs and what to do. `none` at"
        " zero: nothing.",
        (Query(or_none(rate(FINDINGS, by="rule"), ALL, "rule"), "{{rule}}"),),
        "cps",
        width=12,
        stacked=True,
    ),
    Chart(
        "Findings by severity",
        "How grave is it? `info` would save little; mend `critical` first.",
        (Query(or_none(rate(FINDINGS, by="severity"), ALL, "severity"), "{{severity}}"),),
        "cps",
        width=12,
        stacked=True,
    ),
    Chart(
        "Share of evaluations with a grave finding",
        "How many evaluations could be faster? Search Jaeger for fhirpath.bottleneck.severity=warning: such"
        " traces are kept, and carry the advice.",
        (Query(share(rate(FINDINGS, GRAVE), ALL), "warning or critical"),),
        "percentunit",
        limits=(0.01, 0.1),
    ),
    Chart(
        "Findings by stage",
        "Which stage do they point at? Its percentiles are on the dashboard of stages.",
        (Query(or_none(rate(FINDINGS, by="stage"), ALL, "stage"), "{{stage}}"),),
        "cps",
        stacked=True,
    ),
    Chart(
        "Findings by version",
        "Did a version bring a bottleneck, or take one away?",
        (
            Query(
                or_none(rate(FINDINGS, by=f"{SERVICE}, {VERSION}"), ALL, SERVICE),
                legend(SERVICE, VERSION),
            ),
        ),
        "cps",
        stacked=True,
    ),
)

SUMS = (
    Table(
        "In the time shown",
        "What to mend first? Critical ones, then what is found most often.",
        (
            Query(
                or_none(
                    increase(FINDINGS, by=f"rule, severity, stage, {SERVICE}"),
                    increase(f"{EVALUATIONS}_count"),
                    "rule",
                ),
                "Findings",
            ),
        ),
        "short",
        width=24,
        height=10,
    ),
)

PAGE = Dashboard(
    "fhirpath-findings",
    "FHIRPath: findings",
    "Bottlenecks by rule and severity, of all evaluations, whatever became of their traces.",
    EVALUATION_VARIABLES,
    (Row("Over time", OVER_TIME), Row("Altogether", SUMS)),
)

"""Which expressions cost most."""

from __future__ import annotations

from fhirpath_otel import semconv
from tools.dashboards.panels import Chart, Dashboard, Query, Row, Table
from tools.dashboards.promql import (
    EVALUATIONS,
    FAILED,
    HASH,
    MODE,
    TEMPLATE,
    increase,
    legend,
    one_of,
    quantile,
    rate,
    with_template,
)
from tools.dashboards.variables import EVALUATION_VARIABLES

COUNT, SUM = f"{EVALUATIONS}_count", f"{EVALUATIONS}_sum"
IN_MEMORY = one_of(MODE, semconv.IN_MEMORY)
CALLS = increase(COUNT, by=HASH)
TIME = increase(SUM, by=HASH)
COSTLIEST = f"topk(20, {TIME})"
NAMED = legend(TEMPLATE, HASH)


def _of_costliest(expression: str) -> str:
    """For the rows of the table, and no others."""
    return with_template(f"({expression}) and on ({HASH}) {COSTLIEST}")


TOP = (
    Table(
        "Expressions by total time",
        "Which expressions are worth mending? Total time is calls × duration: a quick one that runs a million"
        " times can stand above a slow one. `other` holds all beyond MAX_EXPRESSIONS, `unparsable` those"
        " without a template. Search Jaeger for the hash as fhirpath.expression.hash to see its traces.",
        (
            Query(with_template(COSTLIEST), "Total time", unit="s"),
            Query(_of_costliest(f"{TIME} / on () group_left () sum({TIME})"), "Share", unit="percentunit"),
            Query(_of_costliest(CALLS), "Calls", unit="short"),
            Query(_of_costliest(f"{TIME} / {CALLS}"), "Mean", unit="s"),
            Query(_of_costliest(quantile(0.95, EVALUATIONS, by=HASH, over="$__range")), "p95", unit="s"),
            Query(
                _of_costliest(f"{increase(COUNT, FAILED, by=HASH)} or 0 * {CALLS}"), "Failed", unit="short"
            ),
        ),
        "short",
        width=24,
        height=14,
    ),
    Table(
        "Slowest expressions",
        "Which expressions are slow each time, however rare? Look at their stages in a trace first.",
        (
            Query(
                with_template(f"topk(20, {quantile(0.95, EVALUATIONS, by=HASH, over='$__range')})"),
                "p95",
            ),
        ),
        "s",
        width=12,
        height=10,
    ),
    Table(
        "Most time in memory",
        "Which expressions would gain by SQL? Rewrite what the finding in-memory-fallback names in their"
        " traces.",
        (
            Query(
                with_template(f"topk(20, {increase(SUM, IN_MEMORY, by=HASH)} or 0 * {TIME})"),
                "Total time in memory",
            ),
        ),
        "s",
        width=12,
        height=10,
    ),
)

TREND = (
    Chart(
        "Time by expression",
        "When did an expression begin to take the time? In seconds a second; the ten largest at each moment.",
        (Query(with_template(f"topk(10, {rate(SUM, by=HASH)})"), NAMED),),
        "s",
        width=12,
        height=10,
        stacked=True,
    ),
    Chart(
        "p95 by expression",
        "Did one expression become slower, or all of them? All: look at the database or the machine. Diamonds"
        " are kept traces.",
        (Query(with_template(f"topk(10, {quantile(0.95, EVALUATIONS, by=HASH)})"), NAMED, exemplars=True),),
        "s",
        width=12,
        height=10,
    ),
)

PAGE = Dashboard(
    "fhirpath-expressions",
    "FHIRPath: expressions",
    "Which expressions cost most. Templates show no literal of the expression.",
    EVALUATION_VARIABLES,
    (Row("In the time shown", TOP), Row("Over time", TREND)),
)

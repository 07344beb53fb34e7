"""One database against the other."""

from __future__ import annotations

from fhirpath_otel import semconv
from tools.dashboards.panels import Chart, Dashboard, Heatmap, Number, Query, Row, Table, Variable
from tools.dashboards.promql import (
    COLLECTION,
    DATABASE,
    ERROR,
    FAILED,
    INSTANCE,
    STATEMENTS,
    heat,
    increase,
    legend,
    or_none,
    quantile,
    rate,
    selected,
    series,
    share,
    summed,
)
from tools.dashboards.variables import EVALUATION_VARIABLES

COUNT = f"{STATEMENTS}_count"
NAMED = legend(DATABASE)
CHOSEN = f'{DATABASE}=~"$database"'
P95 = quantile(0.95, STATEMENTS, CHOSEN, by=DATABASE)

TOGETHER = (
    Chart(
        "p50 by database",
        "Which database answers faster usually? DuckDB runs in the process; PostgreSQL's time has the network"
        " in it.",
        (Query(quantile(0.5, STATEMENTS, CHOSEN, by=DATABASE), NAMED),),
        "s",
    ),
    Chart(
        "p95 by database",
        "And for the slower ones? Diamonds are kept traces.",
        (Query(P95, NAMED, exemplars=True),),
        "s",
    ),
    Number(
        "Times the fastest",
        "By how much is a database slower than the fastest of those chosen, at p95? 1 is the fastest itself.",
        (Query(f"{P95} / on () group_left () min({P95})", NAMED),),
        "suffix:×",
    ),
    Table(
        "By resource type",
        "For which resource types does the choice of the database matter?",
        (
            Query(increase(COUNT, CHOSEN, by=f"{COLLECTION}, {DATABASE}"), "Statements", unit="short"),
            Query(
                increase(f"{STATEMENTS}_sum", CHOSEN, by=f"{COLLECTION}, {DATABASE}"), "Total time", unit="s"
            ),
            Query(
                quantile(0.95, STATEMENTS, CHOSEN, by=f"{COLLECTION}, {DATABASE}", over="$__range"),
                "p95",
                unit="s",
            ),
        ),
        "short",
        width=24,
        height=9,
    ),
)

APART = (
    Heatmap(
        "Duration of statements, $database",
        "Are statements of this database alike, or of two kinds? A band far above the rest is missing an"
        " index, or waits.",
        (
            Query(
                heat(STATEMENTS, CHOSEN),
                "{{le}}",
                exemplars=True,
            ),
        ),
        "s",
        width=12,
        height=9,
        repeat="database",
    ),
)

LOAD = (
    Chart(
        "Statements",
        "How many statements run?",
        (Query(rate(COUNT, CHOSEN, by=DATABASE), NAMED),),
        "ops",
        stacked=True,
    ),
    Chart(
        "Time the database works",
        "How many statements run at once, on average? More than the database has cores: it is the bottleneck.",
        (Query(rate(f"{STATEMENTS}_sum", CHOSEN, by=DATABASE), NAMED),),
        "short",
        stacked=True,
    ),
    Chart(
        "Failing statements",
        "Which share fails, by database?",
        (
            Query(
                share(rate(COUNT, CHOSEN, FAILED, by=DATABASE), rate(COUNT, CHOSEN, by=DATABASE)),
                NAMED,
            ),
        ),
        "percentunit",
        limits=(0.001, 0.01),
    ),
    Chart(
        "Errors by type",
        "What fails? `none` at zero: nothing.",
        (Query(or_none(rate(COUNT, CHOSEN, FAILED, by=ERROR), rate(COUNT), ERROR), legend(ERROR)),),
        "ops",
    ),
    Chart(
        "Memory of the embedded databases",
        "Do they hold what they may? See the memory limit of the database.",
        (
            Query(
                summed(selected(series(semconv.DATABASE_MEMORY_USAGE)), f"instance, {DATABASE}"),
                legend(INSTANCE, DATABASE),
            ),
        ),
        "bytes",
    ),
    Chart(
        "Temporary files of the embedded databases",
        "Do statements spill to disk? Then they are slower than need be: raise the memory limit, or ask for"
        " less at once.",
        (
            Query(
                summed(selected(series(semconv.DATABASE_TEMP_USAGE)), f"instance, {DATABASE}"),
                legend(INSTANCE, DATABASE),
            ),
        ),
        "bytes",
    ),
)

PAGE = Dashboard(
    "fhirpath-databases",
    "FHIRPath: databases",
    "DuckDB and PostgreSQL side by side, as far as your services use them.",
    (
        *EVALUATION_VARIABLES,
        Variable("database", "Database", COUNT, DATABASE),
    ),
    (Row("Side by side", TOGETHER), Row("Each by itself", APART), Row("Load", LOAD)),
)

"""Where the time of evaluations goes."""

from __future__ import annotations

from fhirpath_otel import semconv
from tools.dashboards.panels import Chart, Dashboard, Heatmap, Query, Ranking, Row
from tools.dashboards.promql import (
    ENGINE,
    EVALUATIONS,
    OPERATOR,
    OPERATORS,
    STAGE,
    STAGES,
    heat,
    increase,
    legend,
    mean,
    one_of,
    quantile,
    rate,
    series,
    share,
)
from tools.dashboards.variables import EVALUATION_VARIABLES

NAMED = legend(STAGE)
TIME = rate(f"{STAGES}_sum", by=STAGE)
REQUESTS = series(semconv.PARSER_CACHE_REQUESTS)

TIMES = (
    Chart(
        "Time by stage",
        "Which stage takes the time of all evaluations together, in seconds a second? Begin with the widest"
        " band.",
        (Query(TIME, NAMED),),
        "s",
        width=12,
        stacked=True,
    ),
    Chart(
        "Share of each stage",
        "Does a stage dominate? Parsing or type checking above 40 % means that expressions are compiled again"
        " and again, or that evaluations are very short: compile once. See the rules parse-dominates and"
        " type-check-dominates.",
        (Query(f"{TIME} / on () group_left () sum({TIME})", NAMED),),
        "percentunit",
        width=12,
        stacked=True,
    ),
    Chart(
        "p50 by stage",
        "What does a stage usually take?",
        (Query(quantile(0.5, STAGES, by=STAGE), NAMED),),
        "s",
        width=12,
    ),
    Chart(
        "p99 by stage",
        "Which stage makes the slow evaluations slow? Diamonds are kept traces.",
        (Query(quantile(0.99, STAGES, by=STAGE), NAMED, exemplars=True),),
        "s",
        width=12,
    ),
    Heatmap(
        "Duration of the stage sql",
        "Is SQL slow for all, or for some? A second band far above the first is a statement without an index,"
        " or one that waits.",
        (
            Query(
                heat(STAGES, one_of(STAGE, semconv.SQL)),
                "{{le}}",
                exemplars=True,
            ),
        ),
        "s",
        width=12,
    ),
    Chart(
        "Mean time of a stage by engine",
        "Is one engine slower at the same stage?",
        (
            Query(
                mean(STAGES, by=f"{ENGINE}, {STAGE}"),
                legend(ENGINE, STAGE),
            ),
        ),
        "s",
        width=12,
    ),
)

COMPILATION = (
    Chart(
        "Parser's cache",
        "Are expressions found in the cache? Much below 95 % in a steady service: more different texts than"
        " the cache holds, or literals written into the text. Use variables, or make the cache larger.",
        (Query(share(rate(REQUESTS, 'result="hit"'), rate(REQUESTS)), "hits"),),
        "percentunit",
    ),
    Chart(
        "Look-ups",
        "How often is the cache asked, and how often in vain?",
        (Query(rate(REQUESTS, by="result"), "{{result}}"),),
        "ops",
        stacked=True,
    ),
    Chart(
        "Compilation in all of the time",
        "What would be saved if nothing were compiled twice?",
        (
            Query(
                f"{rate(f'{STAGES}_sum', one_of(STAGE, *semconv.COMPILATION))} / {rate(f'{EVALUATIONS}_sum')}",
                "compilation",
            ),
        ),
        "percentunit",
        limits=(0.2, 0.4),
    ),
)

MEMORY = (
    Ranking(
        "Operators by time",
        "Which functions and symbols take the time in memory? Only evaluations at the detail `operators` are"
        " in it, so compare bars with each other. Rewrite the expression, or narrow what is before the"
        " longest one.",
        (Query(f"topk(15, {increase(f'{OPERATORS}_sum', by=OPERATOR)})", legend(OPERATOR)),),
        "s",
        width=12,
        height=10,
    ),
    Chart(
        "p95 by operator",
        "Did an operator become slower? Compare before and after a deployment.",
        (Query(f"topk(10, {quantile(0.95, OPERATORS, by=OPERATOR)})", legend(OPERATOR)),),
        "s",
        width=12,
        height=10,
    ),
)

PAGE = Dashboard(
    "fhirpath-stages",
    "FHIRPath: stages",
    "Where the time of evaluations goes: stages, compilation, operators.",
    EVALUATION_VARIABLES,
    (Row("Stages", TIMES), Row("Compilation", COMPILATION), Row("Operators in memory", MEMORY)),
)

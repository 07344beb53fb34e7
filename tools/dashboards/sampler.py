"""What telemetry keeps, costs and loses."""

from __future__ import annotations

from fhirpath_otel import semconv
from tools.dashboards.panels import Chart, Dashboard, Number, Query, Row, Table
from tools.dashboards.promql import (
    increase,
    or_none,
    rate,
    selected,
    series,
    share,
)
from tools.dashboards.variables import EVALUATION_VARIABLES

TRACES = series(semconv.TRACES)
LOST = series(semconv.LOST)
DETAILS = series(semconv.EVALUATIONS)
OVERHEAD = selected(series(semconv.OVERHEAD_RATIO))
KEPT, SUPPRESSED, DROPPED = (
    f'decision="{decision}"' for decision in (semconv.KEPT, semconv.SUPPRESSED, semconv.DROPPED)
)
ALL = rate(TRACES)

NOW = (
    Number(
        "Traces kept",
        "Which share of evaluations has a trace? Metrics count all of them in any case.",
        (Query(share(rate(TRACES, KEPT), ALL), "kept"),),
        "percentunit",
        width=6,
        height=4,
    ),
    Number(
        "Suppressed",
        "Which share had a reason to be kept, and exceeded its rate? The next trace kept for the reason"
        " stands for them, but what is made of spans is then biased: raise MAX_TRACES_PER_SECOND or"
        " OVERHEAD_BUDGET, or mend what causes so many.",
        (Query(share(rate(TRACES, SUPPRESSED), ALL), "suppressed"),),
        "percentunit",
        width=6,
        height=4,
        limits=(0.01, 0.1),
    ),
    Number(
        "Lost in the time shown",
        "Was telemetry of ours lost? The table below tells what and why, docs/operations.md what to do.",
        (Query(f"{increase(LOST)} or 0 * {increase(TRACES)}", "lost"),),
        "short",
        width=6,
        height=4,
        limits=(1,),
    ),
    Number(
        "Overhead",
        "What does telemetry take of the time of evaluations, in the instance where it takes most?"
        " OVERHEAD_BUDGET is 2 % by default.",
        (Query(f"max({OVERHEAD})", "overhead"),),
        "percentunit",
        width=6,
        height=4,
        limits=(0.02, 0.05),
    ),
)

DECISIONS = (
    Chart(
        "Kept by reason",
        "Why are traces kept? A flood of one reason names the cause: errors, bottlenecks, a threshold that is"
        " too low.",
        (Query(or_none(rate(TRACES, KEPT, by="reason"), ALL, "reason"), "{{reason}}"),),
        "cps",
        stacked=True,
    ),
    Chart(
        "Suppressed by reason",
        "Which reason exceeds its rate? `none` at zero: none does, and metrics made of spans are unbiased.",
        (Query(or_none(rate(TRACES, SUPPRESSED, by="reason"), ALL, "reason"), "{{reason}}"),),
        "cps",
        stacked=True,
    ),
    Chart(
        "Dropped by reason",
        "What stood against a trace? `not_selected` is what sampling is for; `unsampled_parent` and"
        " `host_sampler` are decisions of others, `no_sdk` a program without an SDK.",
        (Query(or_none(rate(TRACES, DROPPED, by="reason"), ALL, "reason"), "{{reason}}"),),
        "cps",
        stacked=True,
    ),
)

COST = (
    Chart(
        "Overhead by instance",
        "Where does it exceed the budget, and since when? Evaluations far below 1 ms, and failing ones, cost"
        " more for each.",
        (Query(f"max by (instance) ({OVERHEAD})", "{{instance}}"),),
        "percentunit",
        limits=(0.02, 0.05),
    ),
    Chart(
        "Evaluations by detail",
        "How much is recorded? The governor gives each expression what the budget pays for; DETAIL pins it.",
        (Query(rate(DETAILS, by="detail"), "{{detail}}"),),
        "ops",
        stacked=True,
    ),
    Chart(
        "One in so many at each detail",
        "Of how many evaluations is one recorded in this detail? Percentiles of details that are rare rest on"
        " few evaluations.",
        (
            Query(
                f"max by (detail) ({selected(series(semconv.DETAIL_INTERVAL))})",
                "{{detail}}",
            ),
        ),
        "short",
    ),
)

LOSSES = (
    Chart(
        "Losses",
        "Since when is telemetry lost? `none` at zero: nothing is.",
        (Query(or_none(rate(LOST, by="what"), ALL, "what"), "{{what}}"),),
        "cps",
        width=12,
    ),
    Table(
        "What was lost, and why",
        "What to do about it? docs/operations.md has a line for each reason; export_failed and queue_full"
        " mean that the collector does not take what is sent.",
        (Query(or_none(increase(LOST, by="what, reason, instance"), increase(TRACES), "what"), "Items"),),
        "short",
        width=12,
    ),
)

PAGE = Dashboard(
    "fhirpath-sampler",
    "FHIRPath: sampler and overhead",
    "What telemetry keeps, what it costs, and what it loses.",
    EVALUATION_VARIABLES,
    (Row("Now", NOW), Row("Decisions", DECISIONS), Row("Cost", COST), Row("Losses", LOSSES)),
)

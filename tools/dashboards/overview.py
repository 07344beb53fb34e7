"""Is the service well, and if not, where to look next."""

from __future__ import annotations

from fhirpath_otel import semconv
from tools.dashboards.panels import Chart, Dashboard, Heatmap, Number, Panel, Query, Row, Table
from tools.dashboards.promql import (
    DATABASE,
    ERROR,
    EVALUATIONS,
    FAILED,
    GRAVE,
    INSTANCE,
    MEMORY_RISE,
    MODE,
    RESULTS,
    SERVICE,
    VERSION,
    heat,
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

COUNT = f"{EVALUATIONS}_count"
FINDINGS = series(semconv.FINDINGS)
LOST = series(semconv.LOST)
OVERHEAD = series(semconv.OVERHEAD_RATIO)


def _percentiles(by: str = "") -> tuple[Query, ...]:
    named = f" {{{{{by}}}}}" if by else ""
    return (
        Query(quantile(0.5, EVALUATIONS, by=by), f"p50{named}"),
        Query(quantile(0.95, EVALUATIONS, by=by), f"p95{named}"),
        Query(quantile(0.99, EVALUATIONS, by=by), f"p99{named}", exemplars=True),
    )


HEALTH: tuple[Panel, ...] = (
    Number(
        "Alerts firing",
        "Is anything wrong that a rule watches, in any service? Open Prometheus' or Alertmanager's page: each"
        " alert links to its runbook.",
        (Query('count(ALERTS{alertstate="firing"}) or vector(0)', "alerts"),),
        "short",
        width=4,
        height=4,
        limits=(1,),
    ),
    Number(
        "Evaluations",
        "How much is evaluated? A drop to nothing while the service is used means that its telemetry does not"
        " arrive: see the dashboard of the collector.",
        (Query(rate(COUNT), "evaluations"),),
        "ops",
        width=4,
        height=4,
    ),
    Number(
        "Failing",
        "Which share of evaluations fails? Above 1 % look at the errors by type below; every failure's trace"
        " is kept as long as the rate allows, so search Jaeger for error=true.",
        (Query(share(rate(COUNT, FAILED), rate(COUNT)), "failing"),),
        "percentunit",
        width=4,
        height=4,
        limits=(0.001, 0.01),
    ),
    Number(
        "99 % take at most",
        "How slow is it for the unlucky? Click a point of the percentiles below to see the trace of such an"
        " evaluation.",
        (Query(quantile(0.99, EVALUATIONS), "p99"),),
        "s",
        width=4,
        height=4,
    ),
    Number(
        "Grave findings",
        "How often does a rule find a bottleneck that costs something? The dashboard of findings tells which"
        " rule, and its advice.",
        (Query(share(rate(FINDINGS, GRAVE), rate(COUNT)), "findings"),),
        "percentunit",
        width=4,
        height=4,
        limits=(0.01, 0.1),
    ),
    Number(
        "Telemetry's overhead",
        "What does watching cost, in the instance where it costs most? The budget is 2 % by default; where it"
        " is exceeded, see the dashboard of the sampler.",
        (Query(f"max({selected(OVERHEAD)})", "overhead"),),
        "percentunit",
        width=4,
        height=4,
        limits=(0.02, 0.05),
    ),
)

TRAFFIC: tuple[Panel, ...] = (
    Chart(
        "Evaluations by service and version",
        "Who evaluates how much, and when did a new version take over? Compare what follows before and after.",
        (Query(rate(COUNT, by=f"{SERVICE}, {VERSION}"), legend(SERVICE, VERSION)),),
        "ops",
        stacked=True,
    ),
    Chart(
        "Errors by type",
        "What fails? The type is the class of the error or our code for it. `none` at zero: nothing fails.",
        (Query(or_none(rate(COUNT, FAILED, by=ERROR), rate(COUNT), ERROR), legend(ERROR)),),
        "ops",
        stacked=True,
    ),
    Chart(
        "By database or in memory",
        "How much of the work is one SQL statement, how much is done in memory? A rise of `in_memory` after a"
        " deployment names a construct that SQL cannot express yet: see the findings of in-memory-fallback.",
        (Query(rate(COUNT, by=MODE), legend(MODE)),),
        "ops",
        stacked=True,
    ),
)

LATENCY: tuple[Panel, ...] = (
    Chart(
        "Percentiles of the duration",
        "How long do evaluations take? Diamonds are evaluations whose trace was kept: click one to open it in"
        " Jaeger. If only p99 rises, look at single traces; if p50 rises too, look at the stages.",
        _percentiles(),
        "s",
        width=12,
        height=9,
    ),
    Heatmap(
        "Duration of all evaluations",
        "Are there two kinds of evaluations, or one that got slower? Two bands are two kinds: tell them apart"
        " by the dashboard of expressions. Points are kept traces.",
        (
            Query(
                heat(EVALUATIONS),
                "{{le}}",
                exemplars=True,
            ),
        ),
        "s",
        width=12,
        height=9,
    ),
    Chart(
        "p95 by version",
        "Did a version make it slower? Compare two versions over the same hours; the alert about regressions"
        " does so too.",
        (Query(quantile(0.95, EVALUATIONS, by=VERSION), legend(VERSION), exemplars=True),),
        "s",
    ),
    Chart(
        "p95 by instance",
        "Is one replica slower than the others? Then its machine is the cause, not the expressions.",
        (Query(quantile(0.95, EVALUATIONS, by="instance"), "{{instance}}"),),
        "s",
    ),
    Chart(
        "Under way",
        "Do evaluations pile up? A level that only rises means that they come faster than they end, or are"
        " begun and never finished.",
        (Query(summed(selected(series(semconv.EVALUATION_ACTIVE)), "instance"), "{{instance}}"),),
        "short",
    ),
)

STATE: tuple[Panel, ...] = (
    Table(
        "Services",
        "Which service needs attention? Sort by what worries you, then choose the service above.",
        (
            Query(rate(COUNT, by=SERVICE), "Evaluations", unit="ops"),
            Query(
                share(rate(COUNT, FAILED, by=SERVICE), rate(COUNT, by=SERVICE)), "Failing", unit="percentunit"
            ),
            Query(quantile(0.95, EVALUATIONS, by=SERVICE), "p95", unit="s"),
            Query(
                share(rate(FINDINGS, GRAVE, by=SERVICE), rate(COUNT, by=SERVICE)),
                "Findings",
                unit="percentunit",
            ),
            Query(f"{rate(LOST, by=SERVICE)} or 0 * {rate(COUNT, by=SERVICE)}", "Lost telemetry", unit="cps"),
            Query(f"max by ({SERVICE}) ({selected(OVERHEAD)})", "Overhead", unit="percentunit"),
        ),
        "short",
        width=24,
        height=7,
    ),
    Chart(
        "Memory of the processes",
        "Does a process grow? A line that rises over hours and never falls is a leak, or results that are"
        " kept: the attribute fhirpath.memory.rss.growth of long evaluations tells which expression.",
        (Query(summed(selected(series(semconv.PROCESS_MEMORY_USAGE)), "instance"), "{{instance}}"),),
        "bytes",
        width=12,
    ),
    Chart(
        "Memory of the embedded databases",
        "How much of that memory is the database's? Lower its memory limit where it takes more than you gave"
        " it.",
        (
            Query(
                summed(selected(series(semconv.DATABASE_MEMORY_USAGE)), f"instance, {DATABASE}"),
                legend(INSTANCE, DATABASE),
            ),
        ),
        "bytes",
        width=12,
    ),
    Chart(
        "How far an evaluation raises memory",
        "Does an evaluation need much memory while it runs? Of those that take 50 ms or more. The process must have"
        " room for as many of them as run at once.",
        (
            Query(quantile(0.5, MEMORY_RISE, by=MODE, over="$__range"), f"p50 {legend(MODE)}"),
            Query(quantile(0.95, MEMORY_RISE, by=MODE, over="$__range"), f"p95 {legend(MODE)}"),
        ),
        "bytes",
        width=12,
    ),
    Chart(
        "Items in a result",
        "Did results grow? Larger results take longer for a reason that no tuning removes.",
        (
            Query(quantile(0.5, RESULTS, by=MODE), f"p50 {{{{{MODE}}}}}"),
            Query(quantile(0.95, RESULTS, by=MODE), f"p95 {{{{{MODE}}}}}"),
        ),
        "short",
        width=12,
    ),
)

PAGE = Dashboard(
    "fhirpath-overview",
    "FHIRPath: overview",
    "Rate, errors and duration of all evaluations, and whether they can be believed.",
    EVALUATION_VARIABLES,
    (Row("Health", HEALTH), Row("Traffic", TRAFFIC), Row("Duration", LATENCY), Row("State", STATE)),
)

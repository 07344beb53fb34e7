"""PromQL over our metrics, under the names and labels that the collector's Prometheus exporter gives them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fhirpath_otel import semconv

if TYPE_CHECKING:
    from fhirpath_otel.semconv import Attribute, Metric

SERVICE = "service_name"
VERSION = "service_version"
INSTANCE = "instance"

SELECTED = f'{SERVICE}=~"$service",{VERSION}=~"$version",{INSTANCE}=~"$instance"'

UNIT_SUFFIXES = {"s": "seconds", "By": "bytes"}


def series(metric: Metric) -> str:
    """The metric's name under the translation strategy `UnderscoreEscapingWithSuffixes`."""
    name = metric.name.replace(".", "_")
    suffix = UNIT_SUFFIXES.get(metric.unit, "")
    if metric.unit == "1" and "gauge" in metric.instrument:
        suffix = "ratio"
    if suffix and not name.endswith(f"_{suffix}"):
        name = f"{name}_{suffix}"
    return f"{name}_total" if metric.instrument == "counter" else name


def label(attribute: Attribute) -> str:
    """The attribute's name as a label."""
    return attribute.name.replace(".", "_")


ENGINE = label(semconv.ENGINE_NAME)
MODE = label(semconv.EXECUTION_MODE)
HASH = label(semconv.EXPRESSION_HASH)
TEMPLATE = label(semconv.EXPRESSION_TEMPLATE)
ERROR = label(semconv.ERROR_TYPE)
STAGE = label(semconv.STAGE)
OPERATOR = label(semconv.OPERATOR_NAME)
DATABASE = label(semconv.DB_SYSTEM_NAME)
COLLECTION = label(semconv.DB_COLLECTION_NAME)

FAILED = f'{ERROR}!=""'
GRAVE = f'{label(semconv.FINDING_SEVERITY)}=~"{semconv.WARNING}|{semconv.CRITICAL}"'

EVALUATIONS = series(semconv.EVALUATION_DURATION)
STAGES = series(semconv.STAGE_DURATION)
OPERATORS = series(semconv.OPERATOR_DURATION)
STATEMENTS = series(semconv.DB_OPERATION_DURATION)
RESULTS = series(semconv.RESULT_COUNT)
MEMORY_RISE = series(semconv.EVALUATION_MEMORY_RISE)


def one_of(name: str, *values: str) -> str:
    """The condition that the label has one of the values."""
    alternatives = "|".join(values)
    return f'{name}=~"{alternatives}"'


def legend(*labels: str) -> str:
    """Their values, as Grafana writes them beside a line."""
    return " ".join(f"{{{{{name}}}}}" for name in labels)


def selected(name: str, *conditions: str) -> str:
    """The series of the services, versions and instances that are chosen on the dashboard."""
    return f"{name}{{{','.join((SELECTED, *conditions))}}}"


def rate(counter: str, *conditions: str, by: str = "") -> str:
    """Per second, added up after the rate was taken of each series, so that a restart is no drop below zero."""
    return summed(f"rate({selected(counter, *conditions)}[$__rate_interval])", by)


def increase(counter: str, *conditions: str, by: str = "") -> str:
    """Over all the time that the dashboard shows."""
    return summed(f"increase({selected(counter, *conditions)}[$__range])", by)


def summed(expression: str, by: str = "") -> str:
    """Over all series, or for each value of the labels."""
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"


def quantile(
    share: float, histogram: str, *conditions: str, by: str = "", over: str = "$__rate_interval"
) -> str:
    """Out of the buckets of all replicas: percentiles themselves cannot be added up."""
    labels = f"le, {by}" if by else "le"
    buckets = selected(f"{histogram}_bucket", *conditions)
    return f"histogram_quantile({share}, sum by ({labels}) (rate({buckets}[{over}])))"


def heat(histogram: str, *conditions: str) -> str:
    """Its buckets over time."""
    buckets = selected(f"{histogram}_bucket", *conditions)
    return f"sum by (le) (increase({buckets}[$__rate_interval]))"


def mean(histogram: str, by: str) -> str:
    """Of all values by label."""
    return f"{rate(f'{histogram}_sum', by=by)} / {rate(f'{histogram}_count', by=by)}"


def share(part: str, whole: str) -> str:
    """`part` of `whole`; 0 where there is a whole, and nothing of the part was ever counted."""
    return f"({part} or 0 * {whole}) / {whole}"


def or_none(expression: str, alive: str, by: str) -> str:
    """`expression`, or a zero named `none` while `alive` has values: "nothing was lost" is not "nothing is known"."""
    none = f'label_replace(0 * sum({alive}), "{by}", "none", "", "")'
    return f"{expression} or ({none} unless on () {expression})"


def with_template(expression: str) -> str:
    """`expression` by hash, with the template beside it where one is known."""
    templates = selected(series(semconv.EXPRESSION_INFO))
    known = f"max by ({HASH}, {TEMPLATE}) (last_over_time({templates}[$__range]))"
    return f"({expression}) * on ({HASH}) group_left ({TEMPLATE}) {known} or ({expression}) unless on ({HASH}) {known}"


def alone(expression: str) -> list[str]:
    """What stands before each `or` of the expression: what takes its place would hide that it names nothing."""
    return [
        expression[_operand_begins(expression, found.start()) : found.start()]
        for found in re.finditer(r" or ", expression)
    ]


def _operand_begins(expression: str, end: int) -> int:
    depth = 0
    for place in range(end - 1, -1, -1):
        depth += (expression[place] in ")}]") - (expression[place] in "({[")
        if depth < 0 or (depth == 0 and expression[place] == ","):
            return place + 1
    return 0


def example(expression: str, *, interval: str = "1m", span: str = "5m") -> str:
    """`expression` as Grafana sends it with everything chosen."""
    replaced = expression.replace("$__rate_interval", interval).replace("$__range", span)
    return re.sub(r"\$\{?[a-z]+\}?", ".*", replaced)

"""What a panel and a dashboard are here, and how they become Grafana's."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grafana_foundation_sdk.builders import bargauge, dashboard, heatmap, stat, table, timeseries
from grafana_foundation_sdk.builders import common as common_builder
from grafana_foundation_sdk.builders import prometheus as prometheus_builder
from grafana_foundation_sdk.models import common, prometheus
from grafana_foundation_sdk.models import dashboard as model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "fhirpath-otel"
GREEN, YELLOW, RED = "green", "yellow", "red"
REFRESH = "30s"


@dataclass(frozen=True, slots=True)
class Query:
    """One expression; `legend` names its series on a chart, and its column in a table."""

    expression: str
    legend: str = ""
    exemplars: bool = False
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """`description` tells what question the panel answers, and what to do about the answer."""

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str
    width: int = 8
    height: int = 8
    stacked: bool = False
    limits: tuple[float, ...] = ()
    hidden: tuple[str, ...] = ()
    repeat: str = ""


class Number(Panel):
    """One number: how it is now."""


class Chart(Panel):
    """Lines over time, or areas on top of each other."""


class Heatmap(Panel):
    """Buckets over time."""


class Ranking(Panel):
    """Bars of one moment, the longest first."""


class Table(Panel):
    """A row for each combination of labels, a column for each query."""


@dataclass(frozen=True, slots=True)
class Row:
    """A headline, and the panels below it."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the head of the dashboard: the values that `label` has on `series`."""

    name: str
    title: str
    series: str
    label: str

    @property
    def query(self) -> str:
        """For Grafana."""
        return f"label_values({self.series}, {self.label})"

    @property
    def expression(self) -> str:
        """The same as PromQL."""
        return f"group by ({self.label}) ({self.series})"


@dataclass(frozen=True, slots=True)
class Dashboard:
    """`uid` is also the name of its file."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All of them, in reading order."""
        return tuple(panel for row in self.rows for panel in row.panels)


def built(page: Dashboard) -> model.Dashboard:
    """`page` as Grafana reads it."""
    builder = (
        dashboard.Dashboard(page.title)
        .uid(page.uid)
        .description(page.description)
        .tags([TAG])
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .refresh(REFRESH)
        .time("now-1h", "now")
        .timezone("browser")
        .link(
            dashboard.DashboardLink("fhirpath-otel")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for variable in page.variables:
        builder = builder.with_variable(_choice(variable))
    identities = itertools.count(1)
    for row in page.rows:
        builder = builder.with_row(dashboard.Row(row.title).id(next(identities)))
        for panel in row.panels:
            builder = builder.with_panel(BUILDERS[type(panel)](panel).id(next(identities)))
    return builder.build()


def _choice(variable: Variable) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(variable.name)
        .label(variable.title)
        .datasource(SOURCE)
        .query(variable.query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        # Also series that do not have the label at all
        .all_value(".*")
        .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _common(builder: Any, panel: Panel) -> Any:
    """What builders of all kinds of panels have; they share no type that says so."""
    builder = (
        builder.title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .height(panel.height)
        .span(panel.width)
        .unit(panel.unit)
    )
    if panel.limits:
        colours = (YELLOW, RED)[-len(panel.limits) :]
        steps = [model.Threshold(None, GREEN)]
        steps += [model.Threshold(limit, colour) for limit, colour in zip(panel.limits, colours, strict=True)]
        builder = builder.thresholds(dashboard.ThresholdsConfig().steps(steps))
    if panel.repeat:
        builder = builder.repeat(panel.repeat).repeat_direction("h")
    return builder


def _targets(
    panel: Panel, *, instant: bool = False, style: prometheus.PromQueryFormat | None = None
) -> list[Any]:
    targets = []
    for reference, query in zip("ABCDEFGHIJ", panel.queries, strict=False):
        target = prometheus_builder.Dataquery().ref_id(reference).expr(query.expression).datasource(SOURCE)
        target = target.instant() if instant else target.range()
        if query.legend:
            target = target.legend_format(query.legend)
        if query.exemplars:
            target = target.exemplar(True)
        if style:
            target = target.format(style)
        targets.append(target)
    return targets


def _number(panel: Panel) -> stat.Panel:
    reduced = common_builder.ReduceDataOptions().calcs(["lastNotNull"])
    builder: stat.Panel = _common(stat.Panel(), panel)
    return (
        builder.targets(_targets(panel))
        .reduce_options(reduced)
        .graph_mode(common.BigValueGraphMode.AREA)
        .color_mode(common.BigValueColorMode.VALUE)
    )


def _chart(panel: Panel) -> timeseries.Panel:
    legend = (
        common_builder.VizLegendOptions()
        .show_legend(True)
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull", "max"])
    )
    tooltip = (
        common_builder.VizTooltipOptions()
        .mode(common.TooltipDisplayMode.MULTI)
        .sort(common.SortOrder.DESCENDING)
    )
    builder: timeseries.Panel = _common(timeseries.Panel(), panel)
    builder = builder.targets(_targets(panel)).legend(legend).tooltip(tooltip).axis_soft_min(0)
    if panel.stacked:
        stacking = common_builder.StackingConfig().mode(common.StackingMode.NORMAL)
        builder = builder.stacking(stacking).fill_opacity(40)
    if panel.limits:
        style = common_builder.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        builder = builder.thresholds_style(style)
    return builder


def _heatmap(panel: Panel) -> heatmap.Panel:
    builder: heatmap.Panel = _common(heatmap.Panel(), panel)
    colours = heatmap.HeatmapColorOptions().scheme("Spectral").steps(64).reverse(True)
    return (
        builder.targets(_targets(panel, style=prometheus.PromQueryFormat.HEATMAP))
        .calculate(False)
        .color(colours)
        .y_axis(heatmap.YAxisConfig().unit(panel.unit))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .exemplars_color("rgba(255,0,255,0.7)")
        .show_y_histogram()
    )


def _ranking(panel: Panel) -> bargauge.Panel:
    reduced = common_builder.ReduceDataOptions().calcs(["lastNotNull"])
    builder: bargauge.Panel = _common(bargauge.Panel(), panel)
    return (
        builder.targets(_targets(panel, instant=True))
        .reduce_options(reduced)
        .orientation(common.VizOrientation.HORIZONTAL)
        .display_mode(common.BarGaugeDisplayMode.BASIC)
        .with_transformation(
            model.DataTransformerConfig("sortBy", options={"sort": [{"field": "Value", "desc": True}]})
        )
    )


def _table(panel: Panel) -> table.Panel:
    builder: table.Panel = _common(table.Panel(), panel)
    columns = {_column(panel, index): query.legend for index, query in enumerate(panel.queries)}
    builder = (
        builder.targets(_targets(panel, instant=True, style=prometheus.PromQueryFormat.TABLE))
        .with_transformation(model.DataTransformerConfig("merge", options={}))
        .with_transformation(
            model.DataTransformerConfig(
                "organize",
                options={
                    "excludeByName": dict.fromkeys(("Time", *panel.hidden), True),
                    "renameByName": columns,
                },
            )
        )
        .sort_by([common_builder.TableSortByFieldState().display_name(panel.queries[0].legend).desc(True)])
    )
    for query in panel.queries:
        if query.unit:
            builder = builder.override_by_name(query.legend, [model.DynamicConfigValue("unit", query.unit)])
    return builder


def _column(panel: Panel, index: int) -> str:
    """Grafana numbers the values only where there are several queries."""
    return f"Value #{'ABCDEFGHIJ'[index]}" if len(panel.queries) > 1 else "Value"


BUILDERS: dict[type[Panel], Callable[[Panel], Any]] = {
    Number: _number,
    Chart: _chart,
    Heatmap: _heatmap,
    Ranking: _ranking,
    Table: _table,
}


def queries(pages: Sequence[Dashboard]) -> list[tuple[str, str, str]]:
    """Dashboard, title of the panel or name of the variable, and expression, of everything that Prometheus is asked."""
    asked = [
        (page.uid, f"${variable.name}", variable.expression) for page in pages for variable in page.variables
    ]
    asked += [
        (page.uid, panel.title, query.expression)
        for page in pages
        for panel in page.panels
        for query in panel.queries
    ]
    return asked

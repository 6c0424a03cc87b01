"""Panels with one sentence each, one data source, and thresholds for values that mean a problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode

SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
"""The provisioned data source."""

Panels = list[timeseries.Panel | stat.Panel]

HEIGHT = 7


class Query(NamedTuple):
    """PromQL and the legend of its series."""

    expr: str
    legend: str = ""


class Limit(NamedTuple):
    """From ``value`` on a number is shown in ``color``."""

    value: float
    color: str


def lines(
    title: str, about: str, queries: Sequence[Query], *, unit: str = "short", span: int = 12, most: float | None = None
) -> timeseries.Panel:
    """Curves over time."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(span)
        .height(HEIGHT)
        .line_width(2)
        .fill_opacity(8)
        .legend(
            VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    if most is not None:
        panel = panel.max(most)
    for query, letter in zip(queries, "ABCDEFGH", strict=False):
        panel = panel.with_target(_target(query, letter).range())
    return panel


def number(
    title: str, about: str, query: Query, *, unit: str = "short", limits: Sequence[Limit] = (), span: int = 4
) -> stat.Panel:
    """The newest value in large type over its graph."""
    steps = [Threshold(value=None, color="green"), *(Threshold(value=v, color=color) for v, color in limits)]
    return (
        stat.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(4)
        .color_mode(BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.AREA)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .with_target(_target(query, "A").range())
    )


def board(uid: str, title: str, about: str) -> dashboard.Dashboard:
    """An empty dashboard: the last hour, refreshed with the scrapes, linked to the other dashboards."""
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags(["ratchet"])
        .readonly()
        .time("now-1h", "now")
        .refresh("15s")
        .timezone("browser")
        .link(dashboard.DashboardLink("Ratchet").tags(["ratchet"]).as_dropdown(True).keep_time(True))
    )


def filled(page: dashboard.Dashboard, rows: Mapping[str, Panels]) -> dashboard.Dashboard:
    """The dashboard with these rows of panels, by their titles."""
    for title, panels in rows.items():
        page = page.with_row(dashboard.Row(title))
        for panel in panels:
            page = page.with_panel(panel)
    return page


def _target(query: Query, letter: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter).datasource(SOURCE)

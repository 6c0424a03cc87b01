"""Families of metrics from values that are kept elsewhere, and the names under which queries find them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}

Samples = Iterable[tuple[tuple[str, ...], float]]
"""(values of the labels, value)"""


def gauge(name: str, help_text: str, labels: tuple[str, ...], samples: Samples) -> GaugeMetricFamily:
    """A gauge with these samples; a family without samples is there all the same."""
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def counter(name: str, help_text: str, labels: tuple[str, ...], samples: Samples) -> CounterMetricFamily:
    """A counter whose total is kept elsewhere, as in the ledger."""
    family = CounterMetricFamily(name, help_text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def single(name: str, help_text: str, value: float | None) -> GaugeMetricFamily:
    """A gauge without labels, which has no sample where the value is unknown."""
    return gauge(name, help_text, (), [] if value is None else [((), float(value))])


def series_names(families: Iterable[Metric]) -> Mapping[str, Metric]:
    """The family of each name that a query may use."""
    return {family.name + suffix: family for family in families for suffix in SUFFIXES.get(family.type, ("",))}

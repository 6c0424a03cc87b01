"""Families of metrics from values that are kept elsewhere. It knows nothing of where they come from."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

Samples = Iterable[tuple[tuple[str, ...], float]]
"""(values of the labels, value)"""


def gauge(name: str, help_text: str, labels: tuple[str, ...], samples: Samples) -> GaugeMetricFamily:
    """A gauge with these samples. A family without samples is exported too."""
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def counter(name: str, help_text: str, labels: tuple[str, ...], samples: Samples) -> CounterMetricFamily:
    """A counter whose total is stored elsewhere, such as in the ledger."""
    family = CounterMetricFamily(name, help_text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def single(name: str, help_text: str, value: float | None) -> GaugeMetricFamily:
    """A gauge without labels, which has no sample where the value is unknown."""
    return gauge(name, help_text, (), [] if value is None else [((), float(value))])

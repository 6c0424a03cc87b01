"""The server's Prometheus metrics: counters of requests, and gauges read from the ModelManager at each scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ratchet.serving.model_manager import ModelManager

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """Counters of one server, in a separate registry."""

    def __init__(self, manager: ModelManager):
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "ratchet_serving_requests",
            "Requests for completions, by HTTP status.",
            ["status"],
            registry=self._registry,
        )
        self._latency = Histogram(
            "ratchet_serving_latency_seconds",
            "Time from a request's arrival to its whole answer.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._tokens = Counter(
            "ratchet_serving_tokens", "Tokens of prompts and of answers.", ["kind"], registry=self._registry
        )
        self._switches = Counter("ratchet_serving_switches", "Changes of the live checkpoint.", registry=self._registry)
        self._registry.register(_ManagerCollector(manager))

    def answered(self, latency_s: float, prompt_tokens: int, generated_tokens: int) -> None:
        self._requests.labels("200").inc()
        self._latency.observe(latency_s)
        self._tokens.labels("prompt").inc(prompt_tokens)
        self._tokens.labels("generated").inc(generated_tokens)

    def refused(self, status: int) -> None:
        self._requests.labels(str(status)).inc()

    def switched(self) -> None:
        self._switches.inc()

    def page(self) -> bytes:
        """The exposition text."""
        return generate_latest(self._registry)


class _ManagerCollector(Collector):
    """State of the ModelManager at the time of the scrape."""

    def __init__(self, manager: ModelManager):
        self._manager = manager

    def collect(self) -> Iterator[GaugeMetricFamily]:
        health = self._manager.health()
        yield GaugeMetricFamily("ratchet_serving_waiting", "Requests in the queue.", value=health.waiting)
        yield GaugeMetricFamily(
            "ratchet_serving_in_flight", "Requests that are being answered.", value=self._manager.in_flight
        )
        yield GaugeMetricFamily("ratchet_serving_loaded", "Checkpoints in memory.", value=len(health.loaded))
        live = GaugeMetricFamily("ratchet_serving_live", "1 for the live checkpoint.", labels=["checkpoint"])
        if health.live is not None:
            live.add_metric([health.live.checkpoint_id], 1)
        yield live

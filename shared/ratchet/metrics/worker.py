"""A worker's metrics and its /metrics page: the events it reads, its claims and verdicts, and their durations.

The page's port is bound before the worker registers, since the registration has its address; the page is filled once
there is a controller. Metrics of the machine are left to the standard exporters.
"""

from __future__ import annotations

import importlib
import time
from collections import OrderedDict
from collections.abc import Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ratchet.errors import TransientError
from ratchet.events import Event
from ratchet.metrics.families import gauge
from ratchet.settings import Settings
from ratchet.settings.control import MetricsSettings
from ratchet.systems.claims import Subject
from ratchet.systems.controller import Controller, Observer
from ratchet.systems.work import NotReady, Outcome, Verdict

WORK_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
START_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0)
PORTS_TRIED = 64
"""Workers of one machine use consecutive ports."""

EVERYWHERE = ("0.0.0.0", "")
REMEMBERED = 1000
"""The most events kept whose lane has not started yet."""


class WorkerMetrics(Observer):
    """Counters of one worker. Prometheus adds system, worker and host as labels."""

    def __init__(self, controller: Controller, registry: CollectorRegistry):
        self.registry = registry
        self._received_at: OrderedDict[str, float] = OrderedDict()
        self._received = Counter("ratchet_events_consumed", "Events read.", ["event"], registry=registry)
        self._start = Histogram(
            "ratchet_event_to_start_seconds",
            "From the creation of an event to the start of the lane that it woke.",
            buckets=START_S,
            registry=registry,
        )
        self._claims = Counter("ratchet_claims", "Subjects claimed.", ["lane"], registry=registry)
        self._verdicts = Counter("ratchet_verdicts", "Verdicts given.", ["lane", "outcome"], registry=registry)
        self._unready = Counter(
            "ratchet_not_ready", "Subjects deferred because inputs are missing.", ["lane"], registry=registry
        )
        self._failures = Counter(
            "ratchet_failures", "Attempts that count against their subject.", ["lane", "kind"], registry=registry
        )
        self._waits = Counter(
            "ratchet_transient_waits", "Waits for the ledger, Redis, a disk or a server.", ["lane"], registry=registry
        )
        self._work = Histogram(
            "ratchet_work_seconds",
            "Time from the claim of a subject to its outcome.",
            ["lane"],
            buckets=WORK_S,
            registry=registry,
        )
        registry.register(_Working(controller))
        ProcessCollector(registry=registry)
        self._begin_at_zero(controller)

    def _begin_at_zero(self, controller: Controller) -> None:
        """Export series from the start, so that their first increase is seen."""
        for event in controller.system.consumes:
            self._received.labels(event.name)
        for lane in controller.system.lanes:
            for family in (self._claims, self._unready, self._waits, self._work):
                family.labels(lane.name)
            for kind in ("error", "killed"):
                self._failures.labels(lane.name, kind)

    def received(self, event: Event) -> None:
        self._received.labels(event.name).inc()
        self._received_at[event.id] = event.at
        while len(self._received_at) > REMEMBERED:
            self._received_at.popitem(last=False)

    def started(self, lane: str, cause: str | None) -> None:  # noqa: ARG002
        made_at = self._received_at.pop(cause, None) if cause is not None else None
        if made_at is not None:
            self._start.observe(max(0.0, time.time() - made_at))

    def claimed(self, lane: str, subject: Subject) -> None:  # noqa: ARG002
        self._claims.labels(lane).inc()

    def decided(self, lane: str, subject: Subject, outcome: Outcome, took_s: float) -> None:  # noqa: ARG002
        self._work.labels(lane).observe(took_s)
        if isinstance(outcome, Verdict):
            self._verdicts.labels(lane, outcome.outcome).inc()
        elif isinstance(outcome, NotReady):
            self._unready.labels(lane).inc()

    def failed(self, lane: str, subject: Subject, killed: bool) -> None:  # noqa: ARG002
        self._failures.labels(lane, "killed" if killed else "error").inc()

    def waiting(self, lane: str) -> None:
        self._waits.labels(lane).inc()


class _Working(Collector):
    """Exports which lanes are working at the time of the scrape."""

    def __init__(self, controller: Controller):
        self._controller = controller

    def collect(self) -> Iterator[GaugeMetricFamily]:
        running = dict(self._controller.running)
        busy = ((lane, 1.0 if lane in running and running[lane].about else 0.0) for lane in self._lanes())
        yield gauge("ratchet_working", "1 while the lane works on a subject.", ("lane",), (((n,), v) for n, v in busy))

    def _lanes(self) -> list[str]:
        return [lane.name for lane in self._controller.system.lanes]


class MetricsPage:
    """One worker's /metrics page, served in a thread from its creation on. ``url`` is its address for Prometheus."""

    def __init__(self, settings: Settings):
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._settings = settings
        self._registry = CollectorRegistry()
        self._server = _started(self._registry, settings.metrics)
        self.url = f"http://{_address(settings.metrics, settings.placement.machine, self.port)}/metrics"

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    def follow(self, controller: Controller) -> None:
        """Count the controller's actions from now on, and export the metrics that its system declares."""
        controller.observers.append(WorkerMetrics(controller, self._registry))
        if controller.system.metrics is not None:
            module, _, name = controller.system.metrics.partition(":")
            self._registry.register(getattr(importlib.import_module(module), name)(self._settings))

    def close(self) -> None:
        """Free the port."""
        self._server.shutdown()
        self._server.server_close()


def _started(registry: CollectorRegistry, settings: MetricsSettings) -> WSGIServer:
    """A server on the first free port from ``metrics.port`` on, or any port for 0. Raises TransientError if none is
    free."""
    first = settings.port
    for port in [0] if first == 0 else range(first, min(first + PORTS_TRIED, 65_536)):
        try:
            return start_http_server(port, settings.host, registry)[0]
        except OSError as error:
            reason = error
    raise TransientError(f"none of {PORTS_TRIED} ports from {first} on can be bound at {settings.host}: {reason}")


def _address(settings: MetricsSettings, machine: str, port: int) -> str:
    """``host:port`` as seen from Prometheus."""
    if settings.address is not None:
        return settings.address if ":" in settings.address else f"{settings.address}:{port}"
    return f"{machine if settings.host in EVERYWHERE else settings.host}:{port}"

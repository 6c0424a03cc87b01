"""A worker's own metrics: what it hears, claims and decides, and how long that takes."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ratchet.events import Event
from ratchet.metrics.exposition import gauge
from ratchet.systems.controller import Controller
from ratchet.systems.observer import Observer
from ratchet.systems.verdict import Outcome, Subject, Verdict

WORK_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
START_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0)
REMEMBERED = 1000
"""Events whose look has not begun; older ones are forgotten."""


class WorkerMetrics(Observer):
    """Counts for one worker, in a registry of its own. The scrape adds system, worker and host as labels."""

    def __init__(self, controller: Controller):
        self.registry = registry = CollectorRegistry()
        self._heard_at: OrderedDict[str, float] = OrderedDict()
        self._heard = Counter("ratchet_events_heard", "Events read.", ["event"], registry=registry)
        self._start = Histogram(
            "ratchet_event_to_start_seconds",
            "From the making of an event to the beginning of the look that it caused.",
            buckets=START_S,
            registry=registry,
        )
        self._claims = Counter("ratchet_claims", "Subjects claimed.", ["lane"], registry=registry)
        self._verdicts = Counter("ratchet_verdicts", "Verdicts given.", ["lane", "outcome"], registry=registry)
        self._unready = Counter("ratchet_not_ready", "Subjects put off: inputs missing.", ["lane"], registry=registry)
        self._failures = Counter(
            "ratchet_failures", "Tries that count against their subject.", ["lane", "kind"], registry=registry
        )
        self._waits = Counter(
            "ratchet_surroundings_waits", "Waits for ledger, Redis, disk or server.", ["lane"], registry=registry
        )
        self._work = Histogram(
            "ratchet_work_seconds",
            "From the claim of a subject to its outcome.",
            ["lane"],
            buckets=WORK_S,
            registry=registry,
        )
        registry.register(_Working(controller))
        ProcessCollector(registry=registry)
        self._begin_at_zero(controller)

    def _begin_at_zero(self, controller: Controller) -> None:
        """Series that are there from the start, so that their first increase is seen."""
        for event in controller.system.consumes:
            self._heard.labels(event.name)
        for lane in controller.system.lanes:
            for family in (self._claims, self._unready, self._waits, self._work):
                family.labels(lane.name)
            for kind in ("error", "killed"):
                self._failures.labels(lane.name, kind)

    def heard(self, event: Event) -> None:
        self._heard.labels(event.name).inc()
        self._heard_at[event.id] = event.at
        while len(self._heard_at) > REMEMBERED:
            self._heard_at.popitem(last=False)

    def started(self, lane: str, cause: str | None) -> None:  # noqa: ARG002
        made_at = self._heard_at.pop(cause, None) if cause is not None else None
        if made_at is not None:
            self._start.observe(max(0.0, time.time() - made_at))

    def claimed(self, lane: str, subject: Subject) -> None:  # noqa: ARG002
        self._claims.labels(lane).inc()

    def decided(self, lane: str, subject: Subject, outcome: Outcome, took_s: float) -> None:  # noqa: ARG002
        self._work.labels(lane).observe(took_s)
        if isinstance(outcome, Verdict):
            self._verdicts.labels(lane, outcome.outcome).inc()
        else:
            self._unready.labels(lane).inc()

    def failed(self, lane: str, subject: Subject, killed: bool) -> None:  # noqa: ARG002
        self._failures.labels(lane, "killed" if killed else "error").inc()

    def waited(self, lane: str) -> None:
        self._waits.labels(lane).inc()


class _Working(Collector):
    """Which lanes work at the moment of the scrape."""

    def __init__(self, controller: Controller):
        self._controller = controller

    def collect(self) -> Iterator[GaugeMetricFamily]:
        running = dict(self._controller.running)
        busy = ((lane, 1.0 if lane in running and running[lane].about else 0.0) for lane in self._lanes())
        yield gauge("ratchet_working", "1 while the lane works on a subject.", ("lane",), (((n,), v) for n, v in busy))

    def _lanes(self) -> list[str]:
        return [lane.name for lane in self._controller.system.lanes]

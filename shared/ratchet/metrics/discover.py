"""The hub's service for Prometheus: /targets from the register of workers, /metrics from ledger and Redis.

Alertmanager may post to /alerts, which writes them into the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, ProcessCollector

from ratchet.bus.connection import redis_url
from ratchet.ledger import Ledger
from ratchet.metrics.alerts import write_alerts
from ratchet.metrics.exposition import page
from ratchet.metrics.ledger.source import LedgerSource
from ratchet.metrics.page import Page, PageServer
from ratchet.metrics.patience import PatientCollector
from ratchet.metrics.streams import StreamSource
from ratchet.metrics.targets import targets_json
from ratchet.settings import Settings


@contextmanager
def discovery(settings: Settings, host: str, port: int) -> Iterator[PageServer]:
    """Serve for the block. Neither ledger nor Redis need to be there; both are read when somebody asks."""
    ledger = Ledger(settings.ledger_url)
    registry, collectors = hub_registry(ledger, settings)
    routes = {
        "/targets": lambda: Page("application/json", targets_json(ledger, settings)),
        "/metrics": lambda: page(registry),
        "/healthz": lambda: Page("text/plain", b"ok\n"),
    }
    try:
        with PageServer(host, port, routes, {"/alerts": write_alerts}, ports_tried=1) as server:
            yield server
    finally:
        for collector in collectors:
            collector.close()
        ledger.close()


def hub_registry(ledger: Ledger, settings: Settings) -> tuple[CollectorRegistry, list[PatientCollector]]:
    """All that is exported once for the whole stack; close the collectors afterwards."""
    registry = CollectorRegistry()
    collectors = [
        PatientCollector(LedgerSource(ledger, settings), settings.metrics.cache_s),
        PatientCollector(StreamSource(lambda: redis_url(settings)), settings.metrics.cache_s),
    ]
    for collector in collectors:
        registry.register(collector)
    ProcessCollector(registry=registry)
    return registry, collectors

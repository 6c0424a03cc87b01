"""The /metrics page of a worker: bound before the worker registers, filled once it has a controller."""

from __future__ import annotations

import importlib

from prometheus_client import CollectorRegistry, disable_created_metrics

from ratchet.metrics.exposition import page
from ratchet.metrics.gpu import gpu_reader
from ratchet.metrics.machine import Duties, MachineCollector
from ratchet.metrics.page import Page, PageServer
from ratchet.metrics.worker import WorkerMetrics
from ratchet.settings import Settings
from ratchet.settings.metrics import MetricsSettings
from ratchet.systems.controller import Controller

PATH = "/metrics"
EVERYWHERE = ("0.0.0.0", "")


class MetricsPage:
    """One worker's page. ``url`` is what Prometheus is told."""

    def __init__(self, settings: Settings):
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._settings = settings
        self._registry = CollectorRegistry()
        self._duties = Duties(settings.lease_folder)
        self._server = PageServer(settings.metrics.host, settings.metrics.port, {PATH: self._page})
        self.url = f"http://{_address(settings.metrics, settings.placement.machine, self.port)}{PATH}"

    @property
    def port(self) -> int:
        return self._server.port

    def follow(self, controller: Controller) -> None:
        """Count what the controller does from now on, and serve the page."""
        metrics = WorkerMetrics(controller)
        metrics.registry.register(MachineCollector(self._duties, self._settings.home.resolve(), gpu_reader()))
        if controller.system.metrics is not None:
            module, _, name = controller.system.metrics.partition(":")
            metrics.registry.register(getattr(importlib.import_module(module), name)(self._settings))
        controller.observers.append(metrics)
        self._registry = metrics.registry
        self._server.watchdog = controller.watchdog
        self._server.start()

    def close(self) -> None:
        self._server.close()
        self._duties.release()

    def _page(self) -> Page:
        return page(self._registry)


def _address(settings: MetricsSettings, machine: str, port: int) -> str:
    """``host:port`` as seen from Prometheus."""
    if settings.address is not None:
        return settings.address if ":" in settings.address else f"{settings.address}:{port}"
    return f"{machine if settings.host in EVERYWHERE else settings.host}:{port}"

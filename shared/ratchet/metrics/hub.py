"""What the hub serves to Prometheus and Alertmanager, as one WSGI application.

/targets lists the metrics pages of all workers registered in the ledger. /metrics has the metrics of the whole stack,
from the ledger and Redis. Alertmanager posts to /alerts, which are written to the log. It does not know the alert rules
or dashboards.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from ratchet.bus.connection import redis_url
from ratchet.errors import TransientError
from ratchet.ledger import Ledger
from ratchet.metrics.source_collector import CACHE_S, LedgerSource, StreamSource, TimeLimitedCollector
from ratchet.metrics.targets import targets_json
from ratchet.settings import Settings

log = logging.getLogger(__name__)

LONGEST_BODY = 1_000_000
"""The most bytes of a notification that are read; Alertmanager's have a few thousand."""

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@contextmanager
def discovery(settings: Settings, host: str, port: int, cache_s: float = CACHE_S) -> Iterator[WSGIServer]:
    """Serve in a thread while the block runs; port 0 picks a free one. Raises TransientError if the port is taken.

    Ledger and Redis may be unavailable: both are read only during a request.
    """
    ledger = Ledger(settings.ledger_url)
    registry, collectors = hub_registry(ledger, settings, cache_s)
    app = hub_app(registry, lambda: targets_json(ledger, settings))
    try:
        with _bound(host, port, app) as server:
            thread = threading.Thread(target=server.serve_forever, name="hub", daemon=True)
            thread.start()
            try:
                yield server
            finally:
                server.shutdown()
                thread.join()
    finally:
        for collector in collectors:
            collector.close()
        ledger.close()


def hub_registry(
    ledger: Ledger, settings: Settings, cache_s: float = CACHE_S
) -> tuple[CollectorRegistry, list[TimeLimitedCollector]]:
    """The metrics that are exported once for the whole stack. Close the collectors afterwards."""
    registry = CollectorRegistry()
    collectors = [
        TimeLimitedCollector(LedgerSource(ledger, settings), cache_s),
        TimeLimitedCollector(StreamSource(lambda: redis_url(settings)), cache_s),
    ]
    for collector in collectors:
        registry.register(collector)
    ProcessCollector(registry=registry)
    return registry, collectors


def hub_app(registry: CollectorRegistry, targets: Callable[[], bytes]) -> App:
    """The application: GET /metrics and /targets, POST /alerts. ``targets`` may raise TransientError."""
    metrics: App = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        asked = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if asked == ("GET", "/metrics"):
            return metrics(environ, start_response)
        if asked == ("GET", "/targets"):
            status, kind, body = _targets(targets)
        elif asked == ("POST", "/alerts"):
            status, kind, body = _alerts(environ)
        else:
            status, kind, body = "404 Not Found", "text/plain", b"there is /metrics, /targets and /alerts\n"
        start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    return app


def _targets(targets: Callable[[], bytes]) -> tuple[str, str, bytes]:
    """The response for /targets. On an error response, Prometheus keeps its previous targets."""
    try:
        return "200 OK", "application/json", targets()
    except TransientError as error:
        log.warning("no targets: %s", error)
        return "503 Service Unavailable", "text/plain", f"{error}\n".encode()


def _alerts(environ: dict[str, Any]) -> tuple[str, str, bytes]:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > LONGEST_BODY:
        return "413 Content Too Large", "text/plain", f"more than {LONGEST_BODY} bytes\n".encode()
    try:
        write_alerts(environ["wsgi.input"].read(length))
    except ValueError as error:
        return "400 Bad Request", "text/plain", f"{error}\n".encode()
    return "200 OK", "text/plain", b"ok\n"


def write_alerts(body: bytes) -> None:
    """Log each alert of one notification: the example receiver. Raises ValueError for anything else."""
    notification = json.loads(body)
    if not isinstance(notification, dict) or not isinstance(notification.get("alerts"), list):
        raise ValueError("a notification of Alertmanager has a list of alerts")
    for alert in notification["alerts"]:
        labels: dict[str, Any] = alert.get("labels", {})
        notes: dict[str, Any] = alert.get("annotations", {})
        is_critical = alert.get("status") == "firing" and labels.get("severity") == "critical"
        log.log(
            logging.ERROR if is_critical else logging.WARNING,
            "alert %s %s: %s (%s) %s",
            labels.get("alertname", "without a name"),
            alert.get("status", "firing"),
            notes.get("summary", ""),
            notes.get("runbook", "no runbook"),
            json.dumps(labels, sort_keys=True),
        )


class _QuietHandler(WSGIRequestHandler):
    timeout = 10.0  # for a client that connects and sends nothing; each request has its own thread

    def log_message(self, *_args: Any) -> None:
        """Scrapes are not logged."""


def _bound(host: str, port: int, app: App) -> WSGIServer:
    try:
        return make_server(host, port, app, ThreadingWSGIServer, _QuietHandler)
    except OSError as error:
        raise TransientError(f"port {port} cannot be bound at {host}: {error}") from error

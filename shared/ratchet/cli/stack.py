"""`ratchet migrate`, `prepare` and `discover`: commands for a stack that runs in containers."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

from ratchet.artifacts.artifact_store import artifact_store
from ratchet.backoff import FIRST_S, Backoff, retry
from ratchet.bus.streams import relaying_ledger
from ratchet.cli.output import MOST_PORT, say
from ratchet.disk import keep_private
from ratchet.errors import LedgerBehind, TransientError
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate as migrate_ledger
from ratchet.ledger.migrate import require_current
from ratchet.logs import log_json
from ratchet.metrics.hub import discovery
from ratchet.run.bootstrap import bootstrap
from ratchet.settings import Settings, load


def migrate(
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a ledger that does not answer yet.")] = 0.0,
) -> None:
    """Migrate the ledger to this version's schema, in one process under a lock. `ratchet run` does it too."""
    settings = load()
    if settings.ledger_url.startswith("sqlite"):  # a server's ledger can be migrated from where there is no home
        keep_private(settings.home)
    ledger = Ledger(settings.ledger_url)
    try:
        backoff = Backoff(FIRST_S, settings.control.max_backoff_s)
        retry(ledger.now, backoff, (TransientError,), limit_s=wait)
        say(f"the ledger has schema {migrate_ledger(ledger)}.")
    finally:
        ledger.close()


def prepare(
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for the stores, and for a ledger to be migrated.")
    ] = 0.0,
) -> None:
    """Publish the base model and the test suites, once, from the host that has the model. `ratchet run` does it too."""
    settings = load()
    keep_private(settings.home)
    backoff = Backoff(FIRST_S, settings.control.max_backoff_s)
    is_new = retry(lambda: _prepared(settings), backoff, (TransientError, LedgerBehind), limit_s=wait)
    say(f"{settings.model.path} is checkpoint 0." if is_new else "everything is prepared already.")


def _prepared(settings: Settings) -> bool:
    """Whether there was anything to do. What an earlier attempt has published is not published again."""
    ledger = relaying_ledger(settings)
    try:
        require_current(ledger)
        return bootstrap(settings, ledger, artifact_store(settings))
    finally:
        ledger.close()


def discover(
    port: Annotated[int, typer.Option(min=0, max=MOST_PORT, help="Port to listen on.")] = 9100,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve the registered workers as /targets and metrics of the whole stack as /metrics to Prometheus.

    Runs until stopped. One is enough for all hosts.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log_json("discover", None)
    with discovery(load(), host, port) as server:
        say(f"serving /targets and /metrics at http://{host}:{server.server_port}")
        stop.wait()

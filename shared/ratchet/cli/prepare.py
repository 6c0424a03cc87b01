"""`ratchet prepare`: the base model and the test suites, before the first worker of several hosts starts."""

from __future__ import annotations

from typing import Annotated

import typer

from ratchet.artifacts.configured import artifact_store
from ratchet.backoff import Backoff, retry
from ratchet.bus.outbox import relaying_ledger
from ratchet.errors import LedgerBehind, TransientError
from ratchet.ledger.migrate import require_current
from ratchet.run.bootstrap import bootstrap
from ratchet.settings import Settings, load


def prepare(
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for the stores, and for a ledger to be migrated.")
    ] = 0.0,
) -> None:
    """Publish the base model and the test suites, once, from the host that has the model. `ratchet run` does so too."""
    settings = load()
    backoff = Backoff(settings.control.backoff_first_s, settings.control.backoff_last_s)
    is_new = retry(lambda: _prepared(settings), backoff, (TransientError, LedgerBehind), limit_s=wait)
    typer.echo(f"{settings.model.path} is checkpoint 0." if is_new else "all is prepared already.")


def _prepared(settings: Settings) -> bool:
    """Whether there was anything to do. What an attempt before has published is found again by the next."""
    ledger = relaying_ledger(settings)
    try:
        require_current(ledger)
        return bootstrap(settings, ledger, artifact_store(settings))
    finally:
        ledger.close()

"""`ratchet migrate`: the ledger to this version's schema."""

from __future__ import annotations

from typing import Annotated

import typer

from ratchet.backoff import Backoff, retry
from ratchet.errors import TransientError
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate as migrate_ledger
from ratchet.settings import load


def migrate(
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a ledger that does not answer yet.")] = 0.0,
) -> None:
    """Bring the ledger to this version's schema; one process does it, under a lock. `ratchet run` does it by itself."""
    settings = load()
    ledger = Ledger(settings.ledger_url)
    try:
        backoff = Backoff(settings.control.backoff_first_s, settings.control.backoff_last_s)
        retry(ledger.now, backoff, (TransientError,), limit_s=wait)
        typer.echo(f"the ledger has schema {migrate_ledger(ledger)}.")
    finally:
        ledger.close()

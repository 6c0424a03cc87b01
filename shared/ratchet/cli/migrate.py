"""`ratchet migrate`: the ledger to this version's schema."""

from __future__ import annotations

from typing import Annotated

import typer

from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate as migrate_ledger
from ratchet.settings import load
from ratchet.worker.patience import patiently


def migrate(
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a ledger that does not answer yet.")] = 0.0,
) -> None:
    """Bring the ledger to this version's schema; one process does it, under a lock. `ratchet run` does it by itself."""
    settings = load()
    ledger = Ledger(settings.ledger_url)
    try:
        patiently(ledger.now, settings.control, wait)
        typer.echo(f"the ledger has schema {migrate_ledger(ledger)}.")
    finally:
        ledger.close()

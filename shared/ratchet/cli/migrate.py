"""`ratchet migrate`: the ledger to this version's schema."""

from __future__ import annotations

import typer

from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate as migrate_ledger
from ratchet.settings import load


def migrate() -> None:
    """Bring the ledger to this version's schema; one process does it, under a lock. `ratchet run` does it by itself."""
    ledger = Ledger(load().ledger_url)
    try:
        typer.echo(f"the ledger is at {migrate_ledger(ledger)}.")
    finally:
        ledger.close()

"""`ratchet prepare`: the base model and the test suites, before the first worker of several hosts starts."""

from __future__ import annotations

import typer

from ratchet.artifacts.configured import artifact_store
from ratchet.bus.outbox import relaying_ledger
from ratchet.ledger.migrate import require_current
from ratchet.run.bootstrap import bootstrap
from ratchet.settings import load


def prepare() -> None:
    """Publish the base model and the test suites, once, from the host that has the model. `ratchet run` does so too."""
    settings = load()
    ledger = relaying_ledger(settings)
    try:
        require_current(ledger)
        is_new = bootstrap(settings, ledger, artifact_store(settings))
    finally:
        ledger.close()
    typer.echo(f"{settings.model.path} is checkpoint 0." if is_new else "all is prepared already.")

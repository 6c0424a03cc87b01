"""`ratchet pause` and `ratchet resume`: the human's hand on the brake of training."""

from __future__ import annotations

import typer

from ratchet.cli.doorbell import ring
from ratchet.cli.place import opened
from ratchet.ledger import hand


def pause() -> None:
    """Let training rest after the running segment. Judging, deployment and serving go on."""
    with opened() as (_, ledger):
        with ledger.write() as tx:
            hand.pause(tx, paused=True)
        typer.echo("training pauses; `ratchet resume` lets it go on.")


def resume() -> None:
    """Let training go on where it rests."""
    with opened() as (settings, ledger):
        with ledger.write() as tx:
            hand.pause(tx, paused=False)
        typer.echo("training goes on.")
        ring(settings, "training")

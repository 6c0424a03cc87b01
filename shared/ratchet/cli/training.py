"""`ratchet pause`, `resume` and `skip`: the human's hand on the brake of training."""

from __future__ import annotations

import typer
from sqlalchemy import select

from ratchet.cli.doorbell import ring
from ratchet.cli.place import opened
from ratchet.errors import PreconditionFailed
from ratchet.ledger import operator_actions
from ratchet.ledger.tables import BatchRow


def pause() -> None:
    """Let training rest. Its running segment ends after a step, and is saved with its place in the batch.

    Judging, deployment and serving go on. Training stays paused over restarts, until `ratchet resume`.
    """
    with opened() as (_, ledger):
        with ledger.write() as tx:
            operator_actions.pause(tx, paused=True)
        typer.echo("training pauses; `ratchet resume` lets it go on.")


def resume() -> None:
    """Let training go on where it rests."""
    with opened() as (settings, ledger):
        with ledger.write() as tx:
            operator_actions.pause(tx, paused=False)
        typer.echo("training goes on.")
        ring(settings, "training")


def skip() -> None:
    """Leave the batch that is in training, and go on with the next one. `ratchet queue skip` takes any batch by its id.

    The running segment ends after its step and is saved: what was trained on stays. The rest of the batch is never
    trained on; its place is kept as its offset.
    """
    with opened() as (settings, ledger):
        with ledger.write() as tx:
            batch = tx.session.scalar(select(BatchRow).where(BatchRow.state == "training").limit(1))
            if batch is None:
                raise PreconditionFailed("no batch is in training; `ratchet queue list` shows what waits.")
            operator_actions.skip(tx, batch)
            text = (
                f"batch {batch.id} is skipped; {batch.offset:,} of its {batch.examples:,} examples are in a checkpoint."
            )
        typer.echo(text)
        ring(settings, "training")

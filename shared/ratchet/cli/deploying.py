"""`ratchet deploy`, `rollback`, `freeze`, `unfreeze` and `unblock`: the human's veto over what is live."""

from __future__ import annotations

from typing import Annotated

import typer

from ratchet.cli import naming
from ratchet.cli.doorbell import ring
from ratchet.cli.place import opened
from ratchet.ledger import operator_actions

Name = Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Its number (7), or the beginning of its id.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; it is kept in the ledger.")]


def deploy(
    checkpoint: Name,
    reason: Reason,
    force: Annotated[
        bool, typer.Option("--force", help="Also one that the gate has not proved; it is marked unproved.")
    ] = False,
) -> None:
    """Make a checkpoint the champion by hand. Without --force only one that was proved before."""
    with opened() as (settings, ledger):
        with ledger.write() as tx:
            found = naming.find(tx.session, checkpoint)
            operator_actions.deploy(tx, found, reason, force=force)
        typer.echo(f"#{found.ordinal} is to be live; the deployer loads, checks and switches.")
        ring(settings, "deployment")


def rollback(reason: Reason = "rolled back by the operator") -> None:
    """Go back to the champion before this one. The present weights are blocked until `ratchet unblock`."""
    with opened() as (settings, ledger):
        with ledger.write() as tx:
            good_id = operator_actions.rollback(tx, reason)
        typer.echo(f"{good_id} is to be live again; the deployer switches.")
        ring(settings, "deployment")


def freeze(reason: Reason) -> None:
    """Deploy nothing until `ratchet unfreeze`. Training and judging go on."""
    with opened() as (_, ledger):
        with ledger.write() as tx:
            operator_actions.freeze(tx, reason)
        typer.echo("frozen: what is live stays live.")


def unfreeze(reason: Reason = "it may go on") -> None:
    """Let the gate deploy again."""
    with opened() as (settings, ledger):
        with ledger.write() as tx:
            operator_actions.unfreeze(tx, reason)
        typer.echo("unfrozen.")
        ring(settings, "deployment")


def unblock(checkpoint: Name, reason: Reason = "allowed again") -> None:
    """Allow weights again that a rollback has blocked."""
    with opened() as (settings, ledger):
        with ledger.write() as tx:
            found = naming.find(tx.session, checkpoint)
            operator_actions.unblock(tx, found, reason)
        typer.echo(f"#{found.ordinal} may be deployed again.")
        ring(settings, "deployment")

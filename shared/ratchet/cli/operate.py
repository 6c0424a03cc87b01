"""`ratchet deploy` and `ratchet train`: decisions that an operator takes in place of the systems."""

from __future__ import annotations

from typing import Annotated

import typer

from ratchet.cli.output import say
from ratchet.home import opened, wake
from ratchet.ledger import operator_actions
from ratchet.views.checkpoint_names import find_checkpoint

Name = Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Its number (7), or the beginning of its id.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; recorded in the ledger.")]

deploy = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Decide what is live, in place of the gate. `ratchet show history` lists each decision with its reason.",
)
train = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Pause and resume training, or skip the batch that is in training.",
)


@deploy.command()
def checkpoint(
    name: Name,
    reason: Reason,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also deploy a checkpoint that the gate has not proved; it is marked unproved."),
    ] = False,
) -> None:
    """Make a checkpoint the champion. Without --force, only one that the gate has proved."""
    with opened() as (settings, ledger):
        with ledger.write() as tx:
            found = find_checkpoint(tx.session, name)
            operator_actions.deploy(tx, found, reason, force=force)
        say(f"#{found.ordinal} will be live as soon as the deployer has loaded and checked it.")
        wake(settings, "deployment")


@deploy.command()
def rollback(reason: Reason = "rolled back by the operator") -> None:
    """Go back to the previous champion. The current weights are blocked until `ratchet deploy unblock`."""
    with opened() as (settings, ledger):
        with ledger.write() as tx:
            good_id = operator_actions.rollback(tx, reason)
        say(f"{good_id} will be live again as soon as the deployer has switched.")
        wake(settings, "deployment")


@deploy.command()
def freeze(reason: Reason) -> None:
    """Deploy nothing until `ratchet deploy unfreeze`. Training and judging continue."""
    with opened() as (_, ledger):
        with ledger.write() as tx:
            operator_actions.freeze(tx, reason)
        say("frozen: what is live stays live.")


@deploy.command()
def unfreeze(reason: Reason = "unfrozen by the operator") -> None:
    """Let the gate deploy again."""
    with opened() as (settings, ledger):
        with ledger.write() as tx:
            operator_actions.unfreeze(tx, reason)
        say("unfrozen.")
        wake(settings, "deployment")


@deploy.command()
def unblock(name: Name, reason: Reason = "unblocked by the operator") -> None:
    """Allow weights that a rollback has blocked to be deployed again."""
    with opened() as (settings, ledger):
        with ledger.write() as tx:
            found = find_checkpoint(tx.session, name)
            operator_actions.unblock(tx, found, reason)
        say(f"#{found.ordinal} may be deployed again.")
        wake(settings, "deployment")


@deploy.command("reset-fencing")
def reset_fencing(reason: Reason) -> None:
    """Make the server accept a ledger restored from a backup.

    The server rejects fencing tokens lower than the highest that it has seen, and a restored ledger issues lower ones.
    Make sure that no other deployer still drives the server from the lost ledger.
    """
    from ratchet.serving.client import ServingClient  # httpx

    with opened() as (settings, ledger):
        with ServingClient.from_settings(settings.serving, settings.serving_home) as server:
            above = server.health().highest_fencing_token
        with ledger.write() as tx:
            operator_actions.reset_fencing(tx, above, reason)
        say(f"the next fencing token is above {above}; the deployer now brings the server to the desired state.")
        wake(settings, "deployment")


@train.command()
def pause() -> None:
    """Pause training. The running segment ends after its current step and is saved with its position in the batch.

    Judging, deployment and serving continue. Training stays paused across restarts, until `ratchet train resume`.
    """
    with opened() as (_, ledger):
        with ledger.write() as tx:
            operator_actions.pause(tx, paused=True)
        say("training pauses; `ratchet train resume` continues it.")


@train.command()
def resume() -> None:
    """Continue training where it was paused."""
    with opened() as (settings, ledger):
        with ledger.write() as tx:
            operator_actions.pause(tx, paused=False)
        say("training continues.")
        wake(settings, "training")


@train.command()
def skip() -> None:
    """Skip the batch that is in training, and continue with the next.

    The running segment ends after its current step and is saved, so the examples trained so far count. The rest of the
    batch is never trained on; the batch records how far training got. `ratchet queue skip` skips any batch by its id.
    """
    with opened() as (settings, ledger):
        with ledger.write() as tx:
            batch = operator_actions.skip_running(tx)
            text = (
                f"batch {batch.id} is skipped; {batch.offset:,} of its {batch.examples:,} examples are in a checkpoint."
            )
        say(text)
        wake(settings, "training")

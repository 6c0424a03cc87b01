"""`ratchet fence`: the inference server obeys this ledger again after it was restored from a backup."""

from __future__ import annotations

import typer

from ratchet.cli.deploying import Reason
from ratchet.cli.doorbell import ring
from ratchet.cli.place import opened
from ratchet.ledger import operator_actions
from ratchet.serving.client import EmbeddedServerClient


def fence(reason: Reason) -> None:
    """After the ledger was restored from a backup: let the inference server obey this ledger again.

    The server obeys no fencing token lower than the highest it has seen, and a restored ledger gives out lower ones.
    Make sure that no other deployer still drives the server with the ledger that was lost.
    """
    with opened() as (settings, ledger):
        with EmbeddedServerClient.from_settings(settings.serving, settings.serving_home) as server:
            above = server.health().highest_token
        with ledger.write() as tx:
            operator_actions.reset_fencing(tx, above, reason)
        typer.echo(f"the next fencing token is above {above}; the deployer brings the server to what is desired.")
        ring(settings, "deployment")

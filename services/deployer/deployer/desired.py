"""Changes of desired state: every one is in the ledger with its reason, before the server hears of it."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from ratchet.events.catalogue import CheckpointDeployed, DeploymentRolledBack
from ratchet.ledger import Transaction, damages
from ratchet.ledger.history import is_proved
from ratchet.ledger.line import serving
from ratchet.ledger.tables import BlockRow, CheckpointRow, DeploymentRow

KEPT_UP = ("deployment", "serving", "main")
"""The system, and the kind and id of the subject, that stands for keeping the server at what is desired."""


def promote(
    tx: Transaction, checkpoint_id: str, champion_id: str, reason: str, numbers: Mapping[str, Any], token: int
) -> str | None:
    """Make the checkpoint the champion in the place of the one that it was proved against.

    A second time is the same as once. Nothing happens where a human was faster, and what it has to wait for is
    returned: they froze deployment, or deployed or rolled back by hand, while the challenge was under way.
    """
    row = serving(tx.session)
    if row.desired_id == checkpoint_id:
        return None
    if row.frozen_reason is not None:
        return f"`ratchet unfreeze` (frozen: {row.frozen_reason})"
    if row.desired_id != champion_id:
        return f"a challenge of {row.desired_id}, which has taken the place of {champion_id}"
    tx.session.add(
        DeploymentRow(
            action="deploy",
            checkpoint_id=checkpoint_id,
            previous_id=row.desired_id,
            reason=reason,
            numbers=dict(numbers),
            token=token,
            created_at=tx.now,
        )
    )
    row.previous_id, row.desired_id, row.proved, row.since_at = row.desired_id, checkpoint_id, True, tx.now
    return None


def roll_back(tx: Transaction, checkpoint_id: str, to_id: str, reason: str, token: int) -> None:
    """Make ``to_id`` the champion again, bar the weights that were just live, and tell of it."""
    row = serving(tx.session)
    weights = tx.session.get_one(CheckpointRow, checkpoint_id).weights
    if tx.session.get(BlockRow, weights) is None:
        tx.session.add(BlockRow(weights=weights, checkpoint_id=checkpoint_id, reason=reason, created_at=tx.now))
    tx.session.add(
        DeploymentRow(
            action="rollback",
            checkpoint_id=to_id,
            previous_id=checkpoint_id,
            reason=reason,
            numbers={},
            token=token,
            created_at=tx.now,
        )
    )
    row.desired_id, row.previous_id, row.proved, row.since_at = to_id, None, is_proved(tx.session, to_id), tx.now
    tx.emit(DeploymentRolledBack(checkpoint_id=checkpoint_id, to_checkpoint_id=to_id, reason=reason))


def observed(tx: Transaction, checkpoint_id: str | None) -> None:
    """Note what the server says is live; the first time that it is what is desired, tell of it.

    With the champion live, nothing stands in for it any more, and what was damaged of it is whole.
    """
    row = serving(tx.session)
    if checkpoint_id == row.desired_id:
        row.fallback_reason = None
        damages.resolve(tx, *KEPT_UP)
    if checkpoint_id is not None and checkpoint_id == row.desired_id != row.actual_id:
        tx.emit(CheckpointDeployed(checkpoint_id=checkpoint_id, previous_id=row.actual_id))
    row.actual_id, row.actual_at = checkpoint_id, tx.now


def compared(tx: Transaction, checkpoint_id: str, passed: bool, difference: float) -> None:
    """Note what the last canary found."""
    row = serving(tx.session)
    row.canary_id, row.canary_passed, row.canary_at = checkpoint_id, passed, tx.now
    row.canary_difference = difference if isfinite(difference) else None

"""The human's hand on the wheel: deployments by hand, freezes, bars and pauses, each in the ledger with its reason.

These change desired state only; the deployer brings the server there.
"""

from __future__ import annotations

from sqlalchemy import select

from ratchet.errors import PreconditionFailed
from ratchet.events.catalogue import DeploymentRolledBack
from ratchet.ledger.counters import next_value, raise_to
from ratchet.ledger.history import BY_HAND, is_proved
from ratchet.ledger.ledger import Transaction
from ratchet.ledger.line import line, serving
from ratchet.ledger.tables import BatchRow, BlockRow, CheckpointRow, DeploymentRow


def deploy(tx: Transaction, checkpoint: CheckpointRow, reason: str, *, force: bool = False) -> None:
    """Make a checkpoint the champion. Without ``force`` only one that the gate has proved before."""
    row = serving(tx.session)
    _require_servable(tx, checkpoint)
    if row.desired_id == checkpoint.id:
        raise PreconditionFailed(f"{checkpoint.id} is the champion already.")
    proved = is_proved(tx.session, checkpoint.id)
    if not proved and not force:
        raise PreconditionFailed(
            f"the gate has not proved {checkpoint.id} better: `ratchet why {checkpoint.ordinal}` says why. "
            "--force deploys it all the same, as a champion marked unproved."
        )
    _change(tx, "deploy", checkpoint.id, row.desired_id, reason)
    row.previous_id, row.desired_id, row.proved, row.since_at = row.desired_id, checkpoint.id, proved, tx.now


def rollback(tx: Transaction, reason: str) -> str:
    """Go back to the champion before this one and bar the present weights. Returns the id gone back to."""
    row = serving(tx.session)
    if row.previous_id is None:
        raise PreconditionFailed("there is no earlier champion to go back to; `ratchet deploy CHECKPOINT` takes any.")
    bad = tx.session.get_one(CheckpointRow, row.desired_id)
    good = tx.session.get_one(CheckpointRow, row.previous_id)
    _require_servable(tx, good)
    if tx.session.get(BlockRow, bad.weights) is None:
        tx.session.add(BlockRow(weights=bad.weights, checkpoint_id=bad.id, reason=reason, created_at=tx.now))
    _change(tx, "rollback", good.id, bad.id, reason)
    tx.emit(DeploymentRolledBack(checkpoint_id=bad.id, to_checkpoint_id=good.id, reason=reason))
    row.desired_id, row.previous_id, row.proved, row.since_at = good.id, None, is_proved(tx.session, good.id), tx.now
    return good.id


def freeze(tx: Transaction, reason: str) -> None:
    """No deployment until unfrozen; judging goes on."""
    row = serving(tx.session)
    _change(tx, "freeze", row.desired_id, None, reason)
    row.frozen_reason = reason


def unfreeze(tx: Transaction, reason: str) -> None:
    row = serving(tx.session)
    if row.frozen_reason is None:
        raise PreconditionFailed("deployment is not frozen.")
    _change(tx, "unfreeze", row.desired_id, None, reason)
    row.frozen_reason = None


def unbar(tx: Transaction, checkpoint: CheckpointRow, reason: str) -> None:
    """Allow rolled-back weights again."""
    bar = tx.session.get(BlockRow, checkpoint.weights)
    if bar is None:
        barred = tx.session.scalars(select(BlockRow.checkpoint_id)).all()
        raise PreconditionFailed(f"{checkpoint.id} is not barred; barred are: {', '.join(barred) or 'none'}.")
    _change(tx, "unbar", checkpoint.id, None, reason)
    tx.session.delete(bar)


def fence(tx: Transaction, above: int, reason: str) -> None:
    """Let the next fencing token be higher than one that a server obeys: the way out of a ledger that was restored.

    Only where no other deployer works on that server: from now on this ledger has the say. PreconditionFailed where it
    has it.
    """
    if not raise_to(tx.session, "fencing", above):
        raise PreconditionFailed(f"this ledger's fencing tokens are above the server's ({above}) already.")
    _change(tx, "fence", serving(tx.session).desired_id, None, reason)


def pause(tx: Transaction, *, paused: bool) -> None:
    """Let training rest (its running segment ends after a step, and is saved), or go on."""
    row = line(tx.session)
    if row.paused == paused:
        raise PreconditionFailed("training is paused already." if paused else "training is not paused.")
    row.paused, row.updated_at = paused, tx.now


def skip(tx: Transaction, batch: BatchRow) -> None:
    """Train on no more of a batch, ever. What was trained on it stays; its offset says how much that is.

    Where it is in training, its running segment ends after a step, is saved, and the verdict follows.
    """
    if batch.state not in ("submitted", "queued", "training"):
        raise PreconditionFailed(
            f"batch {batch.id} is {batch.state}; only one that waits or is in training can be skipped."
        )
    batch.state, batch.finished_at = "skipped", tx.now


def _require_servable(tx: Transaction, checkpoint: CheckpointRow) -> None:
    if checkpoint.state != "saved":
        raise PreconditionFailed(f"{checkpoint.id} is {checkpoint.state}: {checkpoint.reason or 'its files are gone'}.")
    bar = tx.session.get(BlockRow, checkpoint.weights)
    if bar is not None:
        raise PreconditionFailed(
            f"{checkpoint.id} is barred ({bar.reason}): `ratchet unbar {checkpoint.ordinal}` first."
        )


def _change(tx: Transaction, action: str, checkpoint_id: str, previous_id: str | None, reason: str) -> None:
    tx.session.add(
        DeploymentRow(
            action=action,
            checkpoint_id=checkpoint_id,
            previous_id=previous_id,
            reason=BY_HAND + reason,
            numbers={},
            token=next_value(tx.session, "fencing"),
            created_at=tx.now,
        )
    )

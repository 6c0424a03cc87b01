"""Actions of an operator: deployments, rollbacks, freezes, blocks, pauses and skipped batches.

Each function checks that the action is valid and otherwise raises PreconditionFailed with a remedy. They only change
desired state; the deployment and training systems act on it.
"""

from __future__ import annotations

from sqlalchemy import select

from ratchet.errors import PreconditionFailed
from ratchet.ledger import deployments
from ratchet.ledger.deployments import serving, was_proved
from ratchet.ledger.ledger import Transaction, raise_counter
from ratchet.ledger.lineage import lineage
from ratchet.ledger.tables import BatchRow, BlockRow, CheckpointRow


def deploy(tx: Transaction, checkpoint: CheckpointRow, reason: str, *, force: bool = False) -> None:
    """Make a checkpoint the champion. Without ``force`` only one that the gate has promoted before."""
    _require_servable(tx, checkpoint)
    if serving(tx.session).desired_id == checkpoint.id:
        raise PreconditionFailed(f"{checkpoint.id} is the champion already.")
    is_proved = was_proved(tx.session, checkpoint.id)
    if not is_proved and not force:
        raise PreconditionFailed(
            f"the gate has not proved {checkpoint.id} better: `ratchet why {checkpoint.ordinal}` says why. "
            "--force deploys it anyway, as a champion marked unproved."
        )
    deployments.deploy(tx, checkpoint.id, "operator", reason, is_proved=is_proved)


def rollback(tx: Transaction, reason: str) -> str:
    """Go back to the previous champion and block the current weights. Returns the id of the new champion."""
    row = serving(tx.session)
    if row.previous_id is None:
        raise PreconditionFailed(
            "there is no earlier champion to go back to; `ratchet deploy checkpoint CHECKPOINT` deploys any."
        )
    _require_servable(tx, tx.session.get_one(CheckpointRow, row.previous_id))
    return deployments.roll_back(tx, row.desired_id, row.previous_id, "operator", reason)


def freeze(tx: Transaction, reason: str) -> None:
    """Allow no deployment until ``unfreeze``. Judging continues."""
    deployments.freeze(tx, reason)


def unfreeze(tx: Transaction, reason: str) -> None:
    if serving(tx.session).frozen_reason is None:
        raise PreconditionFailed("deployment is not frozen.")
    deployments.unfreeze(tx, reason)


def unblock(tx: Transaction, checkpoint: CheckpointRow, reason: str) -> None:
    """Allow the weights of a rolled-back checkpoint to be deployed again."""
    if tx.session.get(BlockRow, checkpoint.weights) is None:
        blocked = tx.session.scalars(select(BlockRow.checkpoint_id)).all()
        raise PreconditionFailed(f"{checkpoint.id} is not blocked; blocked are: {', '.join(blocked) or 'none'}.")
    deployments.unblock(tx, checkpoint, reason)


def reset_fencing(tx: Transaction, above: int, reason: str) -> None:
    """Raise the fencing counter above the highest token that the inference server has seen.

    Needed after a restore from a backup, because the server rejects the lower tokens of the restored ledger. Only safe
    if no deployer still drives that server from another ledger.
    """
    if not raise_counter(tx.session, "fencing", above):
        raise PreconditionFailed(f"this ledger's fencing tokens are above the server's ({above}) already.")
    deployments.note_fencing_reset(tx, reason)


def pause(tx: Transaction, *, paused: bool) -> None:
    """Set or clear the pause flag of training. A running segment ends after its current step and is saved."""
    row = lineage(tx.session)
    if row.paused == paused:
        raise PreconditionFailed("training is paused already." if paused else "training is not paused.")
    row.paused, row.updated_at = paused, tx.now


def skip(tx: Transaction, batch: BatchRow) -> None:
    """Stop training on a batch. Examples trained so far count; the batch's offset is their number.

    A running segment of it ends after its current step and is saved, and the trainer's verdict follows.
    """
    if batch.state not in ("submitted", "queued", "training"):
        raise PreconditionFailed(f"batch {batch.id} is {batch.state}; only a waiting or running batch can be skipped.")
    batch.state, batch.finished_at = "skipped", tx.now


def skip_running(tx: Transaction) -> BatchRow:
    """Skip the batch that is in training, and return it. Raises PreconditionFailed where none is."""
    batch = tx.session.scalar(select(BatchRow).where(BatchRow.state == "training").limit(1))
    if batch is None:
        raise PreconditionFailed("no batch is in training; `ratchet queue list` shows the queue.")
    skip(tx, batch)
    return batch


def _require_servable(tx: Transaction, checkpoint: CheckpointRow) -> None:
    if checkpoint.state != "saved":
        why = checkpoint.reason or "its files have been deleted"
        raise PreconditionFailed(f"{checkpoint.id} is {checkpoint.state}: {why}.")
    block = tx.session.get(BlockRow, checkpoint.weights)
    if block is not None:
        raise PreconditionFailed(
            f"{checkpoint.id} is blocked ({block.reason}): run `ratchet deploy unblock {checkpoint.ordinal}` first."
        )

"""Going back to the newest checkpoint that training can go on from, where what the line's head needs is damaged.

A rewind (trainer.rewind) leaves a line that has gone bad; here the line was good, and only files of it are lost. So the
batches since then are not put into quarantine: they are queued again, and trained from the very state that stood before
them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ratchet.artifacts import ArtifactStore
from ratchet.errors import ArtifactError, TransientError
from ratchet.events.catalogue import BatchQueued
from ratchet.ledger import Ledger, Transaction, health
from ratchet.ledger.ledger import clock
from ratchet.ledger.lineage import adapter_base, ancestry, head, lineage
from ratchet.ledger.tables import BatchRow, CheckpointRow, ClaimRow, LineageRow, VerdictRow
from ratchet.settings import Settings
from ratchet.systems import Work
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from trainer.start import TRAINING, origin

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """Where training goes on. ``fresh_optimizer`` where there are only the weights to go on from."""

    checkpoint: CheckpointRow
    fresh_optimizer: bool


def check(settings: Settings, ledger: Ledger, artifacts: ArtifactStore) -> bool:
    """Whether the line had to be taken back, since its head cannot be gone on from.

    Raises TransientError where no checkpoint of the line is left to go on from.
    """
    with ledger.read() as session:
        main = session.get(LineageRow, "main")
        if main is None or _others_train(session, clock(session)):
            return False
        newest, base = head(session), adapter_base(session)
    damage = _damage(settings, artifacts, newest, base, fresh=main.fresh_optimizer)
    if damage is None:
        return False
    target = _target(settings, ledger, artifacts, newest.id, base, damage)
    with ledger.write() as tx:
        if not _others_train(tx.session, tx.now):
            take_back(tx, newest.id, damage, target)
    return True


def set_state_aside(work: Work, reason: str) -> None:
    """Go back because the head's state, whole as it is, cannot be gone on from, as the training process found."""
    with work.read() as session:
        newest, base = head(session), adapter_base(session)
    damage = ArtifactError(reason)
    damage.artifact = newest.state_artifact
    target = _target(work.settings, work.ledger, work.artifacts, newest.id, base, damage)
    work.commit(lambda tx: take_back(tx, newest.id, damage, target))


def take_back(tx: Transaction, head_id: str, damage: ArtifactError, target: Target) -> None:
    """Make the target the line's head, and queue the batches since then again. Nothing where the head has moved on."""
    main = lineage(tx.session)
    if main.head_id != head_id:
        return
    again = _queue_again(tx, main, _left_behind(tx.session, head_id, target.checkpoint.id), target.checkpoint)
    newest = tx.session.get_one(CheckpointRow, head_id)
    if newest.state_artifact == damage.artifact:
        newest.state_artifact = None
    main.head_id, main.fresh_optimizer, main.updated_at = target.checkpoint.id, target.fresh_optimizer, tx.now
    how = "with a fresh optimizer" if target.fresh_optimizer else "from its exact state"
    consequence = f"Training goes on from {target.checkpoint.id} {how}"
    if again:
        consequence += f"; trained again: {', '.join(f'batch {id}' for id in again)}"
    artifact = damage.artifact or head_id
    health.record_damage(tx, artifact, str(damage), TRAINING, "checkpoint", head_id, f"{consequence}.")
    for batch_id in again:
        tx.emit(BatchQueued(batch_id=batch_id))


def _others_train(session: Session, now: float) -> bool:
    """Whether a worker trains at this moment: what it has loaded is whole, and it will move the head."""
    held = select(ClaimRow.system).where(
        ClaimRow.system == TRAINING, ClaimRow.owner.is_not(None), ClaimRow.expires_at > now
    )
    return session.scalar(held.limit(1)) is not None


def _damage(
    settings: Settings, artifacts: ArtifactStore, checkpoint: CheckpointRow, base: CheckpointRow | None, *, fresh: bool
) -> ArtifactError | None:
    """What is wrong with the files that going on from the checkpoint loads."""
    try:
        artifacts.fetch(origin(settings, artifacts, checkpoint, base, fresh=fresh).weights.artifact)
    except ArtifactError as error:
        return error
    return None


def _target(
    settings: Settings,
    ledger: Ledger,
    artifacts: ArtifactStore,
    head_id: str,
    base: CheckpointRow | None,
    damage: ArtifactError,
) -> Target:
    """The newest checkpoint with an intact state that fits; else, with a fresh optimizer, with intact weights."""
    log.error("training cannot go on from %s: %s", head_id, damage)
    with ledger.read() as session:
        path = [checkpoint for checkpoint in ancestry(session, head_id) if checkpoint.state == "saved"]
    for checkpoint in path:
        if checkpoint.id != head_id and _has_state(settings, artifacts, checkpoint, base):
            return Target(checkpoint, fresh_optimizer=False)
    for checkpoint in path:
        if _damage(settings, artifacts, checkpoint, base, fresh=True) is None:
            return Target(checkpoint, fresh_optimizer=True)
    raise TransientError(
        f"no checkpoint of the line is whole any more: {damage} Bring the artifacts back with `ratchet restore`."
    ) from damage


def _has_state(
    settings: Settings, artifacts: ArtifactStore, checkpoint: CheckpointRow, base: CheckpointRow | None
) -> bool:
    try:
        found = origin(settings, artifacts, checkpoint, base, fresh=False)
        artifacts.fetch(found.weights.artifact)
    except ArtifactError:
        return False
    return found.state is not None


def _queue_again(tx: Transaction, main: LineageRow, left: list[CheckpointRow], target: CheckpointRow) -> list[str]:
    """Queue every batch that was trained on since the target, the oldest first; the one that the target is in the
    middle of is open again. Returns their ids."""
    ids = list(dict.fromkeys(checkpoint.batch_id for checkpoint in reversed(left) if checkpoint.batch_id is not None))
    opened = main.running_batch_id
    if opened is not None and opened not in ids and opened != target.batch_id:
        _reopen(tx.session.get_one(BatchRow, opened), "queued", 0)
        opened = None
    again = []
    for batch_id in ids:
        batch = tx.session.get_one(BatchRow, batch_id)
        if batch.state not in ("training", "trained"):
            continue
        if batch_id == target.batch_id:
            newest = next(checkpoint for checkpoint in left if checkpoint.batch_id == batch_id)
            _reopen(batch, "training", batch.offset * target.offset // newest.offset)
            opened = batch_id
        else:
            _reopen(batch, "queued", 0)
            opened = None if opened == batch_id else opened
        again.append(batch_id)
    trained = (VerdictRow.system == TRAINING, VerdictRow.subject_kind == "batch", VerdictRow.subject_id.in_(again))
    tx.session.execute(delete(VerdictRow).where(*trained))
    main.running_batch_id = opened
    return again


def _reopen(batch: BatchRow, state: str, offset: int) -> None:
    batch.state, batch.offset, batch.finished_at = state, offset, None
    if state == "queued":
        batch.started_at = None


def _left_behind(session: Session, head_id: str, target_id: str) -> list[CheckpointRow]:
    """The checkpoints from the head to the target, the newest first, without the target."""
    left: list[CheckpointRow] = []
    for checkpoint in ancestry(session, head_id):
        if checkpoint.id == target_id:
            break
        left.append(checkpoint)
    return left

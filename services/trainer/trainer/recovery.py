"""Moving training back: recovery from damaged files, and a rewind from bad weights.

Recovery is for a good lineage with lost or damaged files: training resumes from the newest checkpoint with an intact
state, and the batches since then are queued again. A rewind is for bad weights (a broken checkpoint, a critical
regression, a diverging loss): the batches since the champion are quarantined, and training continues from it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ratchet.artifacts import ArtifactStore
from ratchet.errors import ArtifactError, TransientError
from ratchet.events.catalogue import BatchQueued
from ratchet.ledger import Ledger, Transaction, health
from ratchet.ledger.deployments import champion
from ratchet.ledger.ledger import clock
from ratchet.ledger.lineage import adapter_base, ancestry, head, lineage
from ratchet.ledger.tables import BatchRow, CheckpointRow, ClaimRow, LineageRow, VerdictRow
from ratchet.settings import Settings
from ratchet.systems import Work
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from trainer.planning import TRAINING, resume_point

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecoveryPoint:
    """Where training resumes. ``fresh_optimizer`` is True if only the weights are intact."""

    checkpoint: CheckpointRow
    fresh_optimizer: bool


def recover(settings: Settings, ledger: Ledger, artifacts: ArtifactStore) -> bool:
    """Roll training back if files of its head are damaged. Returns whether that was necessary.

    Raises TransientError if no checkpoint of the lineage is intact.
    """
    with ledger.read() as session:
        main = session.get(LineageRow, "main")
        if main is None or _is_training(session, clock(session)):
            return False
        newest, base = head(session), adapter_base(session)
    damage = _find_damage(settings, artifacts, newest, base, fresh=main.fresh_optimizer)
    if damage is None:
        return False
    target = _find_recovery_point(settings, ledger, artifacts, newest.id, base, damage)
    with ledger.write() as tx:
        if not _is_training(tx.session, tx.now):
            roll_back(tx, newest.id, damage, target)
    return True


def discard_state(work: Work, reason: str) -> None:
    """Roll back because the training process cannot resume from the head's state, although its files are intact."""
    with work.read() as session:
        newest, base = head(session), adapter_base(session)
    damage = ArtifactError(reason)
    damage.artifact = newest.state_artifact
    target = _find_recovery_point(work.settings, work.ledger, work.artifacts, newest.id, base, damage)
    work.commit(lambda tx: roll_back(tx, newest.id, damage, target))


def roll_back(tx: Transaction, head_id: str, damage: ArtifactError, target: RecoveryPoint) -> None:
    """Make the target the head, and queue the batches since then again. No-op if the head is not ``head_id``."""
    main = lineage(tx.session)
    if main.head_id != head_id:
        return
    again = _requeue(tx, main, _since(tx.session, head_id, target.checkpoint.id), target.checkpoint)
    newest = tx.session.get_one(CheckpointRow, head_id)
    if newest.state_artifact == damage.artifact:
        newest.state_artifact = None
    main.head_id, main.fresh_optimizer, main.updated_at = target.checkpoint.id, target.fresh_optimizer, tx.now
    how = "with a fresh optimizer" if target.fresh_optimizer else "from its exact state"
    consequence = f"Training resumes from {target.checkpoint.id} {how}"
    if again:
        consequence += f"; trained again: {', '.join(f'batch {id}' for id in again)}"
    artifact = damage.artifact or head_id
    health.record_damage(tx, artifact, str(damage), TRAINING, "checkpoint", head_id, f"{consequence}.")
    for batch_id in again:
        tx.emit(BatchQueued(batch_id=batch_id))


def _is_training(session: Session, now: float) -> bool:
    """Whether a worker is training. Then the files it has loaded were intact, and it will move the head."""
    held = select(ClaimRow.system).where(
        ClaimRow.system == TRAINING, ClaimRow.owner.is_not(None), ClaimRow.expires_at > now
    )
    return session.scalar(held.limit(1)) is not None


def _find_damage(
    settings: Settings, artifacts: ArtifactStore, checkpoint: CheckpointRow, base: CheckpointRow | None, *, fresh: bool
) -> ArtifactError | None:
    """The error in the files that are needed to resume from the checkpoint, or None."""
    try:
        artifacts.fetch(resume_point(settings, artifacts, checkpoint, base, fresh=fresh).weights.artifact)
    except ArtifactError as error:
        return error
    return None


def _find_recovery_point(
    settings: Settings,
    ledger: Ledger,
    artifacts: ArtifactStore,
    head_id: str,
    base: CheckpointRow | None,
    damage: ArtifactError,
) -> RecoveryPoint:
    """The newest checkpoint with an intact, matching state; else, with a fresh optimizer, one with intact weights."""
    log.error("training cannot resume from %s: %s", head_id, damage)
    with ledger.read() as session:
        path = [checkpoint for checkpoint in ancestry(session, head_id) if checkpoint.state == "saved"]
    for checkpoint in path:
        if checkpoint.id != head_id and _has_state(settings, artifacts, checkpoint, base):
            return RecoveryPoint(checkpoint, fresh_optimizer=False)
    for checkpoint in path:
        if _find_damage(settings, artifacts, checkpoint, base, fresh=True) is None:
            return RecoveryPoint(checkpoint, fresh_optimizer=True)
    raise TransientError(
        f"no checkpoint is intact: {damage} Restore the artifacts with `ratchet backup restore`."
    ) from damage


def _has_state(
    settings: Settings, artifacts: ArtifactStore, checkpoint: CheckpointRow, base: CheckpointRow | None
) -> bool:
    try:
        found = resume_point(settings, artifacts, checkpoint, base, fresh=False)
        artifacts.fetch(found.weights.artifact)
    except ArtifactError:
        return False
    return found.state is not None


def _requeue(tx: Transaction, main: LineageRow, left: list[CheckpointRow], target: CheckpointRow) -> list[str]:
    """Queue every batch trained on since the target again, oldest first; returns their ids. A batch that the target had
    partly trained is reopened at its offset."""
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


def _since(session: Session, head_id: str, target_id: str) -> list[CheckpointRow]:
    """The checkpoints from the head back to the target, newest first, without the target."""
    left: list[CheckpointRow] = []
    for checkpoint in ancestry(session, head_id):
        if checkpoint.id == target_id:
            break
        left.append(checkpoint)
    return left


def rewind(tx: Transaction, bad_batch_id: str | None = None) -> tuple[str, list[str]]:
    """Move the head back to the champion, with a fresh optimizer, and quarantine the batches trained on since.

    ``bad_batch_id`` is quarantined in any case. Returns the new head's id and the quarantined batches.
    """
    target = champion(tx.session)
    main = lineage(tx.session)
    batch_ids = _batches_since(tx, main.head_id, target.id)
    if bad_batch_id is not None:
        batch_ids.add(bad_batch_id)
    for batch_id in batch_ids:
        batch = tx.session.get_one(BatchRow, batch_id)
        if batch.state in ("training", "trained", "queued"):
            batch.state, batch.finished_at = "quarantined", tx.now
    main.head_id, main.fresh_optimizer, main.running_batch_id, main.updated_at = target.id, True, None, tx.now
    return target.id, sorted(batch_ids)


def descends_from(tx: Transaction, head_id: str, ancestor_id: str) -> bool:
    """Whether ``ancestor_id`` is ``head_id`` or one of its ancestors."""
    return any(checkpoint.id == ancestor_id for checkpoint in ancestry(tx.session, head_id))


def _batches_since(tx: Transaction, head_id: str, target_id: str) -> set[str]:
    """Batches trained for the head since its last common ancestor with ``target_id``."""
    kept = {checkpoint.id for checkpoint in ancestry(tx.session, target_id)}
    left = [checkpoint for checkpoint in ancestry(tx.session, head_id) if checkpoint.id not in kept]
    return {checkpoint.batch_id for checkpoint in left if checkpoint.batch_id is not None}

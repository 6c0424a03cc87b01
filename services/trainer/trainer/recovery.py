"""Going back to the newest checkpoint that training can go on from, where what the line's head needs is damaged.

A rewind (trainer.rewind) leaves a line that has gone bad; here the line was good, and only files of it are lost. So the
batches since then are not put into quarantine: they are queued again, and trained from the very state that stood before
them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from ratchet.artifacts import ArtifactStore
from ratchet.errors import ArtifactError, SurroundingsError
from ratchet.events.catalogue import BatchQueued
from ratchet.ledger import Ledger, Transaction, damages
from ratchet.ledger.forks import abandon, open_fork
from ratchet.ledger.ledger import clock
from ratchet.ledger.line import head, line
from ratchet.ledger.tables import Batch, Checkpoint, Claim, Line, Verdict
from ratchet.settings import Settings
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from trainer.form import FULL, form_of
from trainer.start import TRAINING

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """Where training goes on. ``fresh_optimizer`` where there are only the weights to go on from."""

    checkpoint: Checkpoint
    fresh_optimizer: bool


def check(settings: Settings, ledger: Ledger, artifacts: ArtifactStore) -> bool:
    """Whether the line had to be taken back, since its head cannot be gone on from.

    Raises SurroundingsError where no checkpoint of the line is left to go on from.
    """
    with ledger.read() as session:
        main = session.get(Line, "main")
        if main is None or _is_held(session, clock(session)):
            return False
        newest, ground = head(session), _ground(session, main, settings)
    damage = _damage(artifacts, newest, ground, with_state=not main.fresh_optimizer)
    if damage is None:
        return False
    _go_back(ledger, artifacts, newest.id, ground, damage)
    return True


def set_state_aside(settings: Settings, ledger: Ledger, artifacts: ArtifactStore, reason: str) -> None:
    """Go back because the head's state, whole as it is, cannot be gone on from, as the training process found."""
    with ledger.read() as session:
        main = line(session)
        newest, ground = head(session), _ground(session, main, settings)
    damage = ArtifactError(reason)
    damage.artifact = newest.state_artifact
    _go_back(ledger, artifacts, newest.id, ground, damage)


def _is_held(session: Session, now: float) -> bool:
    """Whether a worker trains at this moment: what it has loaded is whole."""
    held = select(Claim.system).where(Claim.system == TRAINING, Claim.owner.is_not(None), Claim.expires_at > now)
    return session.scalar(held.limit(1)) is not None


def _ground(session: Session, main: Line, settings: Settings) -> Checkpoint | None:
    """The checkpoint that adapters stand on; None where all weights are trained."""
    if form_of(settings.model) == FULL or main.adapter_base_id is None:
        return None
    return session.get(Checkpoint, main.adapter_base_id)


def _go_back(
    ledger: Ledger, artifacts: ArtifactStore, head_id: str, ground: Checkpoint | None, damage: ArtifactError
) -> None:
    with ledger.read() as session:
        path = list(_ancestry(session, head_id))
    log.error("training cannot go on from %s: %s", head_id, damage)
    take_back(ledger, head_id, damage, _target(artifacts, path, ground, damage))


def take_back(ledger: Ledger, head_id: str, damage: ArtifactError, target: Target) -> None:
    """Make the target the line's head, and queue the batches since then again. Nothing where the head has moved on."""
    with ledger.write() as tx:
        main = line(tx.session)
        if main.head_id != head_id:
            return
        fork = open_fork(tx.session)
        if fork is not None and fork.parent_id is not None:
            abandon(tx, fork, f"files of {head_id} are damaged")
            if main.head_id != head_id:
                return  # its other branch, or its parent, is looked at next
        left = _left_behind(tx.session, head_id, target.checkpoint.id)
        again = _queue_again(tx, main, left, target.checkpoint)
        newest = tx.session.get_one(Checkpoint, head_id)
        if newest.state_artifact == damage.artifact:
            newest.state_artifact = None
        main.head_id, main.fresh_optimizer, main.updated_at = target.checkpoint.id, target.fresh_optimizer, tx.now
        how = "with a fresh optimizer" if target.fresh_optimizer else "from its exact state"
        consequence = f"Training goes on from {target.checkpoint.id} {how}"
        if again:
            consequence += f"; trained again: {', '.join(f'batch {id}' for id in again)}"
        artifact = damage.artifact or head_id
        damages.record(tx, artifact, str(damage), TRAINING, "checkpoint", head_id, f"{consequence}.")
        for batch_id in again:
            tx.emit(BatchQueued(batch_id=batch_id))


def _damage(
    artifacts: ArtifactStore, checkpoint: Checkpoint, ground: Checkpoint | None, *, with_state: bool
) -> ArtifactError | None:
    """What is wrong with the files that going on from the checkpoint needs; ``ground`` is what adapters stand on."""
    needed = [(ground or checkpoint).artifact]
    if with_state and checkpoint.state_artifact is not None:
        needed.append(checkpoint.state_artifact)
    try:
        for artifact in needed:
            artifacts.fetch(artifact)
    except ArtifactError as error:
        return error
    return None


def _target(
    artifacts: ArtifactStore, path: list[Checkpoint], ground: Checkpoint | None, damage: ArtifactError
) -> Target:
    """The newest checkpoint with an intact state; else the newest whose weights are, with a fresh optimizer."""
    for checkpoint in path[1:]:
        has_state = checkpoint.state == "saved" and checkpoint.state_artifact is not None
        if has_state and _damage(artifacts, checkpoint, ground, with_state=True) is None:
            return Target(checkpoint, fresh_optimizer=False)
    for checkpoint in path:
        if checkpoint.state == "saved" and _damage(artifacts, checkpoint, None, with_state=False) is None:
            return Target(checkpoint, fresh_optimizer=True)
    raise SurroundingsError(
        f"no checkpoint of the line is whole any more: {damage} Bring the artifacts back with `ratchet restore`."
    ) from damage


def _queue_again(tx: Transaction, main: Line, left: list[Checkpoint], target: Checkpoint) -> list[str]:
    """Queue every batch that was trained on since the target, the oldest first; the one that the target is in the
    middle of is open again. Returns their ids."""
    ids = list(dict.fromkeys(checkpoint.batch_id for checkpoint in reversed(left) if checkpoint.batch_id is not None))
    opened = main.running_batch_id
    if opened is not None and opened not in ids and opened != target.batch_id:
        _reopen(tx.session.get_one(Batch, opened), "queued", 0)
        opened = None
    again = []
    for batch_id in ids:
        batch = tx.session.get_one(Batch, batch_id)
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
    trained = (Verdict.system == TRAINING, Verdict.subject_kind == "batch", Verdict.subject_id.in_(again))
    tx.session.execute(delete(Verdict).where(*trained))
    main.running_batch_id = opened
    return again


def _reopen(batch: Batch, state: str, offset: int) -> None:
    batch.state, batch.offset, batch.finished_at = state, offset, None
    if state == "queued":
        batch.started_at = None


def _left_behind(session: Session, head_id: str, target_id: str) -> list[Checkpoint]:
    """The checkpoints from the head to the target, the newest first, without the target."""
    left: list[Checkpoint] = []
    for checkpoint in _ancestry(session, head_id):
        if checkpoint.id == target_id:
            break
        left.append(checkpoint)
    return left


def _ancestry(session: Session, head_id: str) -> Iterator[Checkpoint]:
    """The head and its parents, the newest first."""
    current: str | None = head_id
    while current is not None:
        checkpoint = session.get_one(Checkpoint, current)
        yield checkpoint
        current = checkpoint.parent_id

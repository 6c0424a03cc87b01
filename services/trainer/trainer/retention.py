"""Retention: which checkpoints and training states are deleted, so that the next one finds room on the disk; and when
old events and records are removed.

The ledger is changed first and the artifacts after it, so that no row ever names a missing artifact.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ratchet.artifacts import ArtifactStore
from ratchet.disk import FULL_BYTES, free_bytes, require_room
from ratchet.errors import ArtifactError
from ratchet.inference.adapter_folder import whole_base
from ratchet.ledger import Transaction
from ratchet.ledger.deployments import serving
from ratchet.ledger.ledger import clock
from ratchet.ledger.lineage import lineage
from ratchet.ledger.retention import (
    decisions_made,
    has_old_events,
    kept_causes,
    kept_checkpoints,
    old_records,
    remove_old_events,
    remove_records,
)
from ratchet.ledger.suites import unanswered_requests
from ratchet.ledger.tables import ChallengeRow, CheckpointRow, ClaimRow, TaskRow
from ratchet.systems import Work, registry
from ratchet.training_disk import kept_bytes, save_size
from ratchet.training_memory import model_facts
from sqlalchemy import select
from sqlalchemy.orm import Session

from trainer.planning import SegmentStart


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint whose files are in the artifact store. ``size_bytes`` includes its training state.

    ``base`` is the id of the checkpoint with the weights that its adapters need.
    """

    id: str
    ordinal: int
    size_bytes: int
    base: str | None = None


def select_for_deletion(
    checkpoints: Sequence[StoredCheckpoint], protected: Collection[str], limit_bytes: float
) -> list[str]:
    """Ids to delete, oldest first, until the rest fits into ``limit_bytes``.

    Never deleted are a protected one, the newest, and a base that one which stays needs.
    """
    oldest_first = sorted(checkpoints, key=lambda checkpoint: checkpoint.ordinal)
    held, deleted = sum(checkpoint.size_bytes for checkpoint in checkpoints), []
    kept = {checkpoint.id: checkpoint for checkpoint in oldest_first}
    while held > limit_bytes:
        fixed = {*protected, oldest_first[-1].id, *(checkpoint.base for checkpoint in kept.values())}
        victim = next((checkpoint for checkpoint in kept.values() if checkpoint.id not in fixed), None)
        if victim is None:
            break
        deleted.append(victim.id)
        held -= kept.pop(victim.id).size_bytes
    return deleted


STATES_KEPT = 2
"""Number of training states kept besides those in use: the newest, and the one before in case the newest is damaged.
On a disk that is nearly full only the newest is."""

CLAIMED = ("checkpoint", "request", "mined")
"""Kinds of subjects whose id begins with a checkpoint's id."""


def make_room(work: Work, start: SegmentStart) -> None:
    """Delete what is beyond the limit, so that the next checkpoint and its state can be saved.

    Raises TransientError if there is no room for them even so: a segment would be trained in vain.
    """
    weights = work.artifacts.fetch(start.resume.weights.artifact)
    needed = save_size(model_facts(whole_base(weights)), work.settings.model).total
    apply_retention(work, needed)
    for folder in {work.folder, work.artifacts.disk or work.folder}:
        require_room(folder, needed, "the next checkpoint with its training state")


def apply_retention(work: Work, needed_bytes: int = 0) -> None:
    """Delete old training states, and checkpoints beyond ``retention.checkpoints_gb``.

    ``needed_bytes`` are those that the next save takes.
    """
    disk = work.artifacts.disk
    free = None if disk is None else free_bytes(disk)
    is_tight = free is not None and free < needed_bytes + FULL_BYTES
    with work.read() as session:
        found = _saved(session)
        sizes = {row.id: _state_bytes(work.artifacts, row) for row in found}
        bases = _bases(work.artifacts, found)
    gone: list[str] = []

    def effects(tx: Transaction) -> None:
        rows = _saved(tx.session)
        protected = _protected(tx.session)
        gone.extend(_old_states(rows, protected, 1 if is_tight else STATES_KEPT))
        kept = [
            StoredCheckpoint(
                row.id,
                row.ordinal,
                row.size_bytes + (sizes.get(row.id, 0) if row.state_artifact else 0),
                bases.get(row.id),
            )
            for row in rows
        ]
        held, freed = sum(each.size_bytes for each in kept), _freed(rows, sizes)
        limit = kept_bytes(
            work.settings.retention.checkpoints_gb,
            None if free is None else free + freed,
            held,
            needed_bytes + FULL_BYTES,
        )
        doomed = set(select_for_deletion(kept, protected, limit))
        for row in rows:
            if row.id in doomed:
                row.state, row.reason = "deleted", "retention"
                gone.append(row.artifact)
                gone.extend(_detach_state(row))
        named = {artifact for row in rows if row.state == "saved" for artifact in (row.artifact, row.state_artifact)}
        gone[:] = [artifact for artifact in gone if artifact not in named]

    work.commit(effects)
    for artifact in gone:
        work.artifacts.delete(artifact)


PASS_S = 2.0
"""How long events are removed after a checkpoint; training waits for it. What is left goes after the next ones."""


def remove_old_history(work: Work) -> None:
    """Remove events older than ``retention.events_days`` and records older than ``retention.records_days``, but for
    what a decision rests on. Many short transactions, so that no other writer waits long.

    It runs after each checkpoint, since a ledger grows with its checkpoints.
    """
    events_days, records_days = work.settings.retention.events_days, work.settings.retention.records_days
    with work.read() as session:
        now = clock(session)
        decisions = decisions_made(session)
        kept = kept_checkpoints(session)
        judges = [system.name for system in registry.known(session) if system.per_checkpoint]
        records = old_records(session, records_days, now, kept, judges)
        has_events = has_old_events(session, events_days, now)
        causes = kept_causes(session, kept) if has_events else set()
    unnamed: set[str] = set()

    def remove(tx: Transaction) -> None:
        if decisions_made(tx.session) == decisions:  # else the next pass knows what the new one rests on
            unnamed.update(remove_records(tx, records, records_days))

    if records:
        work.commit(remove)
    for artifact in unnamed:
        work.artifacts.delete(artifact)

    def remove_some(tx: Transaction) -> None:
        nonlocal has_events
        is_current = decisions_made(tx.session) == decisions
        has_events = is_current and remove_old_events(tx, events_days, causes) is not None

    until = time.monotonic() + PASS_S
    while has_events and time.monotonic() < until:
        work.commit(remove_some)
        work.progress()


def _saved(session: Session) -> list[CheckpointRow]:
    return list(session.scalars(select(CheckpointRow).where(CheckpointRow.state == "saved")))


def _state_bytes(artifacts: ArtifactStore, row: CheckpointRow) -> int:
    if row.state_artifact is None:
        return 0
    try:
        return artifacts.size_bytes(row.state_artifact)
    except ArtifactError:  # damaged; training finds out when it resumes from it
        return 0


def _freed(rows: Sequence[CheckpointRow], sizes: dict[str, int]) -> int:
    """Bytes of the states that have just been detached."""
    return sum(sizes.get(row.id, 0) for row in rows if row.state_artifact is None)


def _bases(artifacts: ArtifactStore, rows: Sequence[CheckpointRow]) -> dict[str, str]:
    """The id of the checkpoint with the base weights, for each checkpoint of adapters."""
    owners = {row.artifact: row.id for row in sorted(rows, key=lambda row: row.ordinal, reverse=True)}
    required = {row.id: _required(artifacts, row.artifact) for row in rows}
    return {id: owners[artifact] for id, artifact in required.items() if artifact in owners}


@lru_cache(maxsize=4096)
def _required(artifacts: ArtifactStore, artifact: str) -> str | None:
    """The artifact of the base weights that a checkpoint needs. Artifacts never change, so it is read once."""
    try:
        return next(iter(artifacts.manifest(artifact).requires), None)
    except ArtifactError:  # damaged: of no use, whatever it needs
        return None


def _old_states(rows: list[CheckpointRow], protected: set[str], keep: int) -> list[str]:
    with_state = sorted((row for row in rows if row.state_artifact), key=lambda row: row.ordinal, reverse=True)
    old = [row for row in with_state[keep:] if row.id not in protected]
    return [artifact for row in old for artifact in _detach_state(row)]


def _detach_state(row: CheckpointRow) -> list[str]:
    """Clear the row's training state; returns its artifact."""
    artifact, row.state_artifact = row.state_artifact, None
    return [artifact] if artifact else []


def _protected(session: Session) -> set[str]:
    """Champion, rollback target, head, the base weights of its adapters, and all checkpoints in use. So is the base
    model where there is a general task, whose drift is measured from it on every new suite.

    A checkpoint is in use if a claim, an unanswered request or an open challenge names it.
    """
    live = serving(session)
    main = lineage(session)
    named = {live.desired_id, live.previous_id, live.actual_id, main.head_id, main.adapter_base_id}
    claimed = session.scalars(select(ClaimRow.subject_id).where(ClaimRow.subject_kind.in_(CLAIMED)))
    named.update(subject_id.partition("/")[0] for subject_id in claimed)
    named.update(request.checkpoint_id for request in session.scalars(unanswered_requests()))
    undecided = select(ChallengeRow.challenger_id).where(
        ChallengeRow.outcome.is_(None), ChallengeRow.champion_id == live.desired_id
    )
    named.update(session.scalars(undecided))
    if session.scalar(select(TaskRow.name).where(TaskRow.kind == "general")) is not None:
        named.add(session.scalar(select(CheckpointRow.id).order_by(CheckpointRow.ordinal).limit(1)))
    return {name for name in named if name is not None}

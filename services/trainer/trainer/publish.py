"""From a trained segment to a checkpoint in the ledger, and the retention of old ones.

The bytes are published first; one transaction then records them. Retention goes the other way: first the ledger, then
the bytes, so that no row names absent bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ratchet.errors import ClaimLost
from ratchet.events.catalogue import CheckpointSaved
from ratchet.ledger import Transaction
from ratchet.ledger.deployments import serving
from ratchet.ledger.lineage import checkpoint_id, lineage, next_ordinal
from ratchet.ledger.suites import unanswered_requests
from ratchet.ledger.tables import BatchRow, ChallengeRow, CheckpointRow, ClaimRow
from ratchet.systems import Work
from sqlalchemy import select
from sqlalchemy.orm import Session

from trainer.planning import SegmentStart, StopDeadline
from trainer.segment import SegmentResult


@dataclass(frozen=True)
class PublishedSegment:
    """A segment whose checkpoint and state are in the artifact store, before the ledger knows of them."""

    start: SegmentStart
    result: SegmentResult
    artifact: str
    state_artifact: str
    size_bytes: int
    adapter_base_id: str | None
    """Of the checkpoint with the frozen weights, where adapters were trained."""
    save_s: float | None


def publish(work: Work, start: SegmentStart, result: SegmentResult, deadline: StopDeadline) -> PublishedSegment:
    """Publish the folders of a successful segment."""
    assert result.last_checkpoint_path is not None
    assert result.state_path is not None
    provenance = {
        "parent": start.head.id,
        "batch": start.batch.id,
        "offset": result.offset,
        "step": result.global_step,
    }
    checkpoint = work.artifacts.publish(result.last_checkpoint_path, "checkpoint", provenance, consume=True)
    state = work.artifacts.publish(result.state_path, "state", provenance, consume=True)
    return PublishedSegment(
        start=start,
        result=result,
        artifact=checkpoint.id,
        state_artifact=state.id,
        size_bytes=checkpoint.size_bytes,
        adapter_base_id=start.resume.weights.id if work.settings.model.lora_rank else None,
        save_s=deadline.saved_s,
    )


def record(work: Work, segment: PublishedSegment) -> CheckpointRow:
    """Make the checkpoint the head of the lineage, under the claim's token.

    Raises ClaimLost, also where the lineage has moved on from the head that the segment was trained on.
    """
    rows: list[CheckpointRow] = []
    head_id, batch_id = segment.start.head.id, segment.start.batch.id

    def effects(tx: Transaction) -> None:
        main = lineage(tx.session)
        if main.head_id != head_id:
            raise ClaimLost(f"training has left {head_id} while batch {batch_id} was trained on it.")
        rows.append(_checkpoint_row(tx, segment))
        tx.session.add(rows[0])
        tx.session.flush()
        main.head_id, main.fresh_optimizer, main.updated_at = rows[0].id, False, tx.now
        main.adapter_base_id = segment.adapter_base_id
        batch = tx.session.get_one(BatchRow, batch_id)
        batch.offset = _examples_done(segment.result, batch.examples)
        tx.emit(CheckpointSaved(checkpoint_id=rows[0].id, step=segment.result.global_step, batch_id=batch_id))

    work.commit(effects)
    return rows[0]


def _examples_done(result: SegmentResult, examples: int) -> int:
    """All of them exactly when the batch is finished: rows may have been left out, or be trained on more than once."""
    return examples if result.finished else min(examples - 1, examples * result.offset // result.rows)


def _checkpoint_row(tx: Transaction, segment: PublishedSegment) -> CheckpointRow:
    ordinal, result = next_ordinal(tx.session), segment.result
    return CheckpointRow(
        id=checkpoint_id(ordinal, result.weights),
        ordinal=ordinal,
        parent_id=segment.start.head.id,
        batch_id=segment.start.batch.id,
        offset=result.offset,
        step=result.global_step,
        tokens=result.total_tokens,
        weights=result.weights,
        artifact=segment.artifact,
        state_artifact=segment.state_artifact,
        size_bytes=segment.size_bytes,
        train_loss=result.mean_loss or result.final_loss,
        tokens_per_s=result.tokens_per_s,
        save_s=segment.save_s,
        created_at=tx.now,
    )


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint whose bytes are on disk."""

    id: str
    ordinal: int
    size_bytes: int


def select_for_deletion(
    checkpoints: Sequence[StoredCheckpoint], protected: Collection[str], limit_bytes: float
) -> list[str]:
    """Ids to delete, the oldest first, until the rest fits ``limit_bytes``. Never a protected one, nor the newest."""
    if not checkpoints:
        return []
    newest_first = sorted(checkpoints, key=lambda checkpoint: checkpoint.ordinal, reverse=True)
    held = sum(checkpoint.size_bytes for checkpoint in checkpoints)
    deleted = []
    for checkpoint in reversed(newest_first[1:]):
        if held <= limit_bytes:
            break
        if checkpoint.id not in protected:
            deleted.append(checkpoint.id)
            held -= checkpoint.size_bytes
    return deleted


GB = 1e9

STATES_KEPT = 2
"""Optimizer states kept, beside those in use: the newest, and one before it in case that one is damaged."""

CLAIMED = ("checkpoint", "request", "mined")
"""Kinds of subjects whose id begins with a checkpoint's."""


def apply_retention(work: Work) -> None:
    """Delete checkpoints beyond ``retention.checkpoints_gb`` and old training states."""
    retention = work.settings.retention
    gone: list[str] = []

    def effects(tx: Transaction) -> None:
        rows = list(tx.session.scalars(select(CheckpointRow).where(CheckpointRow.state == "saved")))
        protected = _protected(tx.session)
        kept = [StoredCheckpoint(row.id, row.ordinal, row.size_bytes) for row in rows]
        doomed = set(select_for_deletion(kept, protected, retention.checkpoints_gb * GB))
        for row in rows:
            if row.id in doomed:
                row.state, row.reason = "deleted", "retention"
                gone.append(row.artifact)
                gone.extend(_without_state(row))
        gone.extend(_old_states(rows, protected, STATES_KEPT))
        named = {artifact for row in rows if row.state == "saved" for artifact in (row.artifact, row.state_artifact)}
        gone[:] = [artifact for artifact in gone if artifact not in named]

    work.commit(effects)
    for artifact in gone:
        work.artifacts.delete(artifact)


def _old_states(rows: list[CheckpointRow], protected: set[str], keep: int) -> list[str]:
    with_state = sorted((row for row in rows if row.state_artifact), key=lambda row: row.ordinal, reverse=True)
    old = [row for row in with_state[keep:] if row.id not in protected]
    return [artifact for row in old for artifact in _without_state(row)]


def _without_state(row: CheckpointRow) -> list[str]:
    """Take the training state off the row; returns its artifact."""
    artifact, row.state_artifact = row.state_artifact, None
    return [artifact] if artifact else []


def _protected(session: Session) -> set[str]:
    """Champion, rollback target, head, the base weights of its adapters, and all that is in use.

    In use is whatever a claim, an unanswered request or an open challenge names.
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
    return {name for name in named if name is not None}

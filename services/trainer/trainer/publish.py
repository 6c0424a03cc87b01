"""Publishing a trained segment as a checkpoint in the ledger.

Artifacts are published first, then recorded in one transaction, so that no row ever names a missing artifact.
"""

from __future__ import annotations

from dataclasses import dataclass

from ratchet.errors import ClaimLost
from ratchet.events.catalogue import CheckpointSaved
from ratchet.inference.adapter_folder import BaseReference, is_adapter
from ratchet.ledger import Transaction
from ratchet.ledger.lineage import checkpoint_id, lineage, next_ordinal
from ratchet.ledger.tables import BatchRow, CheckpointRow
from ratchet.systems import Work
from sqlalchemy import select
from sqlalchemy.orm import Session

from trainer.planning import SegmentStart, StopDeadline
from trainer.segment import SegmentResult


@dataclass(frozen=True)
class PublishedSegment:
    """A segment whose checkpoint and state are in the artifact store but not yet in the ledger."""

    start: SegmentStart
    result: SegmentResult
    artifact: str
    state_artifact: str
    size_bytes: int
    base_artifact: str | None
    """The artifact of the frozen weights, if adapters were trained."""
    save_s: float | None


def publish(work: Work, start: SegmentStart, result: SegmentResult, deadline: StopDeadline) -> PublishedSegment:
    """Publish the folders of a successful segment. A checkpoint of adapters requires the artifact of its base."""
    assert result.last_checkpoint_path is not None
    assert result.state_path is not None
    base = BaseReference.read(result.last_checkpoint_path).artifact if is_adapter(result.last_checkpoint_path) else None
    provenance = {
        "parent": start.head.id,
        "batch": start.batch.id,
        "offset": result.offset,
        "step": result.global_step,
    }
    checkpoint = work.artifacts.publish(
        result.last_checkpoint_path,
        "checkpoint",
        provenance,
        consume=True,
        requires=[base] if base is not None else [],
    )
    state = work.artifacts.publish(result.state_path, "state", provenance, consume=True)
    return PublishedSegment(
        start=start,
        result=result,
        artifact=checkpoint.id,
        state_artifact=state.id,
        size_bytes=checkpoint.size_bytes,
        base_artifact=base,
        save_s=deadline.saved_s,
    )


def record(work: Work, segment: PublishedSegment) -> CheckpointRow:
    """Make the checkpoint the head of the lineage, under the claim's token.

    Raises ClaimLost, also if the lineage's head is no longer the one that the segment was trained on.
    """
    rows: list[CheckpointRow] = []
    head_id, batch_id = segment.start.head.id, segment.start.batch.id

    def effects(tx: Transaction) -> None:
        main = lineage(tx.session)
        if main.head_id != head_id:
            raise ClaimLost(f"the head is no longer {head_id}, on which batch {batch_id} was trained.")
        rows.append(_checkpoint_row(tx, segment))
        tx.session.add(rows[0])
        tx.session.flush()
        main.head_id, main.fresh_optimizer, main.updated_at = rows[0].id, False, tx.now
        main.adapter_base_id = _checkpoint_of(tx.session, segment.base_artifact)
        batch = tx.session.get_one(BatchRow, batch_id)
        batch.offset = _examples_done(segment.result, batch.examples)
        tx.emit(CheckpointSaved(checkpoint_id=rows[0].id, step=segment.result.global_step, batch_id=batch_id))

    work.commit(effects)
    return rows[0]


def _checkpoint_of(session: Session, artifact: str | None) -> str | None:
    """The id of the saved checkpoint with this artifact."""
    query = select(CheckpointRow.id).where(CheckpointRow.artifact == artifact, CheckpointRow.state == "saved")
    return None if artifact is None else session.scalar(query.order_by(CheckpointRow.ordinal).limit(1))


def _examples_done(result: SegmentResult, examples: int) -> int:
    """The offset in the batch's examples, all of them only when it is finished. It is scaled, since rows may be left
    out or trained on several times."""
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

"""From a trained segment to a checkpoint in the ledger: publish the bytes, then tell of them in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.errors import ClaimLost
from ratchet.events.catalogue import CheckpointSaved
from ratchet.ledger import Transaction
from ratchet.ledger.lineage import checkpoint_id, lineage, next_ordinal
from ratchet.ledger.tables import BatchRow, CheckpointRow
from ratchet.systems import Work

from trainer.grace import Grace
from trainer.start import Start


@dataclass(frozen=True)
class Segment:
    """What a segment left behind, published. ``offset`` counts the rows trained, of ``rows`` over all epochs."""

    head_id: str
    adapter_base_id: str | None
    batch_id: str
    offset: int
    rows: int
    finished: bool
    step: int
    tokens: int
    weights: str
    artifact: str
    state_artifact: str
    size_bytes: int
    loss: float
    tokens_per_s: float
    save_s: float | None


def publish(work: Work, start: Start, result: dict[str, Any], grace: Grace) -> Segment:
    """Publish checkpoint and state folders of a successful segment (see trainer.segment)."""
    head_id, batch_id = start.head.id, start.batch.id
    provenance = {"parent": head_id, "batch": batch_id, "offset": result["offset"], "step": result["global_step"]}
    model = work.artifacts.publish(Path(result["checkpoint"]), "checkpoint", provenance, consume=True)
    state = work.artifacts.publish(Path(result["state"]), "state", provenance, consume=True)
    return Segment(
        head_id=head_id,
        adapter_base_id=start.ground.id if work.settings.model.lora_rank else None,
        batch_id=batch_id,
        offset=int(result["offset"]),
        rows=int(result["rows"]),
        finished=bool(result["finished"]),
        step=int(result["global_step"]),
        tokens=int(result["total_tokens"]),
        weights=str(result["weights"]),
        artifact=model.id,
        state_artifact=state.id,
        size_bytes=model.size_bytes,
        loss=float(result["mean_loss"] or result["final_loss"]),
        tokens_per_s=float(result["tokens_per_s"]),
        save_s=grace.saved_s,
    )


def record(work: Work, segment: Segment) -> CheckpointRow:
    """Put the checkpoint at the head of the line, under the claim's token.

    Raises ClaimLost, also where the line has moved on from the head that the segment was trained on.
    """
    rows: list[CheckpointRow] = []

    def effects(tx: Transaction) -> None:
        if lineage(tx.session).head_id != segment.head_id:
            raise ClaimLost(f"the line has left {segment.head_id} while batch {segment.batch_id} was trained on it.")
        rows.append(_row(tx, segment))
        tx.session.add(rows[0])
        tx.session.flush()
        main = lineage(tx.session)
        main.head_id, main.fresh_optimizer, main.updated_at = rows[0].id, False, tx.now
        main.adapter_base_id = segment.adapter_base_id
        batch = tx.session.get_one(BatchRow, segment.batch_id)
        batch.offset = _examples_done(segment, batch.examples)
        tx.emit(CheckpointSaved(checkpoint_id=rows[0].id, step=segment.step, batch_id=segment.batch_id))

    work.commit(effects)
    return rows[0]


def _examples_done(segment: Segment, examples: int) -> int:
    """All of them exactly when the batch is finished: rows may have been left out, or be trained on more than once."""
    return examples if segment.finished else min(examples - 1, examples * segment.offset // segment.rows)


def _row(tx: Transaction, segment: Segment) -> CheckpointRow:
    ordinal = next_ordinal(tx.session)
    return CheckpointRow(
        id=checkpoint_id(ordinal, segment.weights),
        ordinal=ordinal,
        parent_id=segment.head_id,
        batch_id=segment.batch_id,
        offset=segment.offset,
        step=segment.step,
        tokens=segment.tokens,
        weights=segment.weights,
        artifact=segment.artifact,
        state_artifact=segment.state_artifact,
        size_bytes=segment.size_bytes,
        train_loss=segment.loss,
        tokens_per_s=segment.tokens_per_s,
        save_s=segment.save_s,
        created_at=tx.now,
    )

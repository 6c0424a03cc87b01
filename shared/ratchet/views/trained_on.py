"""What a checkpoint was trained on: the batch it was saved from, and all examples on the way from the base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import BatchRow, CheckpointRow, OutboxRow, VerdictRow
from ratchet.views.batches import origin_in_words
from ratchet.views.journal import first_after

MOST_CHILDREN = 12
SEARCHED_S, SEARCHED = 60.0, 20_000
"""Where the event of a checkpoint is searched: from so many seconds before it was saved, so many events."""


@dataclass(frozen=True)
class TrainedOn:
    """``start`` and ``end`` say which of the batch's examples it was trained on since its parent.

    ``corrections`` of the batch's examples are lessons made from wrong answers, of ``counted``.
    """

    batch: BatchRow
    words: Sequence[str]
    start: int
    end: int
    corrections: int
    counted: int


def trained_on(session: Session, row: CheckpointRow) -> TrainedOn | None:
    """The batch that the checkpoint was saved from; None for the base model."""
    batch = session.get(BatchRow, row.batch_id) if row.batch_id else None
    if batch is None:
        return None
    parent = session.get(CheckpointRow, row.parent_id) if row.parent_id else None
    counts: Mapping[str, int] = batch.provenance.get("counts") or {}
    return TrainedOn(
        batch=batch,
        words=tuple(origin_in_words(batch)),
        start=parent.offset if parent is not None and parent.batch_id == row.batch_id else 0,
        end=row.offset,
        corrections=int(counts.get("corrections", 0)) if batch.origin == "correction" else 0,
        counted=sum(counts.values()) or batch.examples,
    )


def examples_on_the_way(session: Session, row: CheckpointRow) -> dict[str, int]:
    """Examples that its ancestors and it were trained on, by the origin of their batches, the most first."""
    columns = (CheckpointRow.id, CheckpointRow.parent_id, CheckpointRow.batch_id, CheckpointRow.offset)
    walked = select(*columns).where(CheckpointRow.id == row.id).cte("walked", recursive=True)
    walked = walked.union_all(select(*columns).where(CheckpointRow.id == walked.c.parent_id))
    query = select(walked.c.batch_id, walked.c.offset, BatchRow.origin)
    query = query.join(BatchRow, BatchRow.id == walked.c.batch_id)
    reached: dict[str, tuple[str, int]] = {}
    for batch_id, offset, origin in session.execute(query):
        # Several checkpoints may be saved from one batch: the furthest counts.
        reached[batch_id] = (origin, max(offset, reached.get(batch_id, (origin, 0))[1]))
    totals: dict[str, int] = {}
    for origin, offset in reached.values():
        totals[origin] = totals.get(origin, 0) + offset
    return dict(sorted(totals.items(), key=lambda each: -each[1]))


def children(session: Session, row: CheckpointRow) -> list[CheckpointRow]:
    """Checkpoints that were trained from it, the oldest first."""
    query = select(CheckpointRow).where(CheckpointRow.parent_id == row.id).order_by(CheckpointRow.ordinal)
    return list(session.scalars(query.limit(MOST_CHILDREN)))


def saved_event(session: Session, row: CheckpointRow) -> OutboxRow | None:
    """The event that announced the checkpoint, where the outbox still has it."""
    woke = select(VerdictRow.cause).where(
        VerdictRow.system == "testing", VerdictRow.subject_kind == "checkpoint", VerdictRow.subject_id == row.id
    )
    names_it = (OutboxRow.name == "checkpoint.saved", OutboxRow.body.contains(f'"{row.id}"', autoescape=True))
    cause = session.scalar(woke)
    found = session.scalar(select(OutboxRow).where(OutboxRow.event_id == cause, *names_it)) if cause else None
    if found is not None:
        return found
    # A sweep finds a checkpoint without an event: then the events of its time are searched.
    first = first_after(session, row.created_at - SEARCHED_S)
    near = (OutboxRow.seq >= first, OutboxRow.seq < first + SEARCHED)
    return session.scalar(select(OutboxRow).where(*names_it, *near).order_by(OutboxRow.seq).limit(1))

"""The training queue: how deep it is, what comes next, and how a batch gets in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from ratchet.errors import PreconditionFailed
from ratchet.events.catalogue import BatchSubmitted
from ratchet.ledger.ledger import Transaction
from ratchet.ledger.tables import BatchRow
from ratchet.ledger.undecided import lacks_verdict

Origin = Literal["generation", "correction", "user"]
TRAINER = "training"
GATE = "correction"
"""The system whose verdict takes a batch out of the submitted; the trainer's takes it out of the queue."""

PRIORITIES = {"high": 0, "normal": 1, "low": 2}


@dataclass(frozen=True)
class Depth:
    """Examples on their way to training, by where they stand. ``running`` is the untrained rest of the open batch.

    What lies in the dead letters is on its way nowhere and does not count.
    """

    submitted: int
    queued: int
    running: int

    @property
    def total(self) -> int:
        return self.submitted + self.queued + self.running


def depth(session: Session, origin: Origin | None = None) -> Depth:
    """Depth of the queue, or of the part of it that came from one origin."""
    return Depth(
        submitted=_sum(session, BatchRow.submitted_examples, "submitted", GATE, origin),
        queued=_sum(session, BatchRow.examples, "queued", TRAINER, origin),
        running=_sum(session, BatchRow.examples - BatchRow.offset, "training", TRAINER, origin),
    )


def next_batch(session: Session) -> BatchRow | None:
    """The open batch, else the queued one of the highest priority that waits longest."""
    return session.scalar(_waiting().limit(1))


def _waiting() -> Select[BatchRow]:
    """Batches that training has not done with, in the order in which it takes them."""
    query = select(BatchRow).where(
        BatchRow.state.in_(("training", "queued")), lacks_verdict(TRAINER, "batch", BatchRow.id)
    )
    return query.order_by(BatchRow.state.desc(), BatchRow.priority, BatchRow.queued_at, BatchRow.id)


def skipped_midway(session: Session) -> list[BatchRow]:
    """Batches that were left while they were in training, and have no verdict yet."""
    query = select(BatchRow).where(BatchRow.state == "skipped", BatchRow.started_at.is_not(None))
    return list(session.scalars(query.where(lacks_verdict(TRAINER, "batch", BatchRow.id)).order_by(BatchRow.id)))


def submit(
    tx: Transaction,
    artifact_id: str,
    examples: int,
    origin: Origin,
    provenance: Mapping[str, Any],
    priority: str = "normal",
) -> BatchSubmitted:
    """Put a published batch before the gate. The same content twice is refused. Returns the event, not yet emitted."""
    batch_id = artifact_id[:16]
    known = tx.session.get(BatchRow, batch_id)
    if known is not None:
        raise PreconditionFailed(
            f"batch {batch_id} is known already, it is {known.state}: the same rows were submitted before."
        )
    tx.session.add(
        BatchRow(
            id=batch_id,
            origin=origin,
            state="submitted",
            priority=PRIORITIES[priority],
            submitted_artifact=artifact_id,
            artifact=None,
            quarantine_artifact=None,
            submitted_examples=examples,
            provenance=dict(provenance),
            submitted_at=tx.now,
            queued_at=None,
            started_at=None,
            finished_at=None,
        )
    )
    return BatchSubmitted(batch_id=batch_id)


def _sum(session: Session, column: ColumnElement[int] | Any, state: str, system: str, origin: Origin | None) -> int:
    query = select(func.coalesce(func.sum(column), 0))
    query = query.where(BatchRow.state == state, lacks_verdict(system, "batch", BatchRow.id))
    return int(session.scalar(query if origin is None else query.where(BatchRow.origin == origin)) or 0)

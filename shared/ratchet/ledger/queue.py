"""The training queue: how deep it is, what comes next, and how a batch gets in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from ratchet.errors import Refused
from ratchet.events.catalogue import BatchSubmitted
from ratchet.ledger.ledger import Transaction
from ratchet.ledger.tables import Batch
from ratchet.ledger.undecided import lacks_verdict

Origin = Literal["generation", "correction", "user"]
GATE, TRAINER = "correction", "training"
"""The systems whose verdict takes a batch out of the submitted, and out of the queue."""

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
        submitted=_sum(session, Batch.submitted_examples, "submitted", GATE, origin),
        queued=_sum(session, Batch.examples, "queued", TRAINER, origin),
        running=_sum(session, Batch.examples - Batch.offset, "training", TRAINER, origin),
    )


def next_batch(session: Session) -> Batch | None:
    """The open batch, else the queued one of the highest priority that waits longest."""
    waiting = select(Batch).where(Batch.state.in_(("training", "queued")), lacks_verdict(TRAINER, "batch", Batch.id))
    return session.scalar(waiting.order_by(Batch.state.desc(), Batch.priority, Batch.queued_at, Batch.id).limit(1))


def skipped_midway(session: Session) -> list[Batch]:
    """Batches that were left while they were in training, and have no verdict yet."""
    query = select(Batch).where(Batch.state == "skipped", Batch.started_at.is_not(None))
    return list(session.scalars(query.where(lacks_verdict(TRAINER, "batch", Batch.id)).order_by(Batch.id)))


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
    known = tx.session.get(Batch, batch_id)
    if known is not None:
        raise Refused(f"batch {batch_id} is known already, it is {known.state}: the same rows were submitted before.")
    tx.session.add(
        Batch(
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
    query = query.where(Batch.state == state, lacks_verdict(system, "batch", Batch.id))
    return int(session.scalar(query if origin is None else query.where(Batch.origin == origin)) or 0)

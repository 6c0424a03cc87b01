"""The training queue: how deep it is, what comes next, and how a batch gets in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from ratchet.errors import PreconditionFailed
from ratchet.events.catalogue import BatchSubmitted
from ratchet.ledger.forks import TRAINER, branches, open_fork
from ratchet.ledger.ledger import Transaction
from ratchet.ledger.tables import Batch, Fork
from ratchet.ledger.undecided import lacks_verdict

Origin = Literal["generation", "correction", "user"]
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
        submitted=_sum(session, Batch.submitted_examples, "submitted", GATE, origin),
        queued=_sum(session, Batch.examples, "queued", TRAINER, origin),
        running=_sum(session, Batch.examples - Batch.offset, "training", TRAINER, origin),
    )


def next_batch(session: Session) -> Batch | None:
    """The open batch, else the queued one of the highest priority that waits longest.

    The batches of a fork are trained one after the other once both are there, on their branches alone; then nothing is
    trained until the fork is decided.
    """
    fork = open_fork(session)
    bound = _bound(session, fork) if fork is not None else []
    opened = session.scalar(_waiting().where(Batch.state == "training").limit(1))
    if fork is not None and opened is None and (fork.parent_id is not None or _are_all_queued(bound)):
        return _next_of(session, bound)
    ordinary = _waiting().where(Batch.id.not_in([batch.id for batch in bound if batch is not None]))
    return opened or session.scalar(ordinary.limit(1))


def _waiting() -> Select[Batch]:
    """Batches that training has not done with, in the order in which it takes them."""
    query = select(Batch).where(Batch.state.in_(("training", "queued")), lacks_verdict(TRAINER, "batch", Batch.id))
    return query.order_by(Batch.state.desc(), Batch.priority, Batch.queued_at, Batch.id)


def _bound(session: Session, fork: Fork) -> list[Batch | None]:
    """The batches of the fork's branches; None where one is not made yet."""
    return [session.get(Batch, row.batch_id) if row.batch_id else None for row in branches(session, fork.id)]


def _are_all_queued(bound: Sequence[Batch | None]) -> bool:
    return all(batch is not None and batch.state == "queued" for batch in bound)


def _next_of(session: Session, bound: Sequence[Batch | None]) -> Batch | None:
    """The first that is not trained, where training can take it."""
    first = next((batch for batch in bound if batch is not None and batch.state != "trained"), None)
    return session.scalar(_waiting().where(Batch.id == first.id)) if first is not None else None


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
        raise PreconditionFailed(
            f"batch {batch_id} is known already, it is {known.state}: the same rows were submitted before."
        )
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

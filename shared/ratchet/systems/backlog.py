"""Backlogs that several systems share."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import Checkpoint, Evaluation, SuiteRow
from ratchet.ledger.undecided import lacks_verdict
from ratchet.systems.verdict import Subject


def evaluated_without(session: Session, system: str, pool: str) -> list[Subject]:
    """Checkpoints with a record on the pool's suite in force that lack the system's verdict, the newest first."""
    query = select(Checkpoint.id).join(Evaluation, Checkpoint.id == Evaluation.checkpoint_id)
    query = query.join(SuiteRow, SuiteRow.id == Evaluation.suite_id)
    query = query.where(
        SuiteRow.pool == pool,
        SuiteRow.retired_at.is_(None),
        Checkpoint.state != "broken",
        lacks_verdict(system, "checkpoint", Checkpoint.id),
    )
    return [Subject("checkpoint", id) for id in session.scalars(query.order_by(Checkpoint.ordinal.desc()))]

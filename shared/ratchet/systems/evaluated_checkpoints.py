"""Shared by systems that judge checkpoints: finding evaluated checkpoints, and requesting a damaged record again."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.ledger.ledger import Transaction
from ratchet.ledger.pending import lacks_verdict
from ratchet.ledger.suites import evaluation, request_evaluation
from ratchet.ledger.tables import CheckpointRow, EvaluationRow, SuiteRow
from ratchet.systems.claims import Subject
from ratchet.systems.work import NotReady


def evaluated_without(session: Session, system: str, pool: str) -> list[Subject]:
    """Checkpoints with a record on the pool's current suite that lack the system's verdict, the newest first."""
    query = select(CheckpointRow.id).join(EvaluationRow, CheckpointRow.id == EvaluationRow.checkpoint_id)
    query = query.join(SuiteRow, SuiteRow.id == EvaluationRow.suite_id)
    query = query.where(
        SuiteRow.pool == pool,
        SuiteRow.retired_at.is_(None),
        CheckpointRow.state != "broken",
        lacks_verdict(system, "checkpoint", CheckpointRow.id),
    )
    return [Subject("checkpoint", id) for id in session.scalars(query.order_by(CheckpointRow.ordinal.desc()))]


def request_again(row: EvaluationRow, who: str) -> NotReady:
    """Request a record whose file cannot be read again, unless that was already done, and wait for it."""

    def effects(tx: Transaction) -> None:
        now = evaluation(tx.session, row.checkpoint_id, row.suite_id)
        is_damaged = now is not None and now.artifact == row.artifact
        request_evaluation(tx, row.checkpoint_id, row.suite_id, who, row.checkpoint_id, is_damaged=is_damaged)

    return NotReady(f"the {row.pool} record of {row.checkpoint_id}", effects)

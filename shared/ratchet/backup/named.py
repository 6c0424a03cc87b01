"""Which artifacts a ledger needs: without their bytes it would name what is not there."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute, Session

from ratchet.ledger.tables import BatchRow, CheckpointRow, EvaluationRow, MinedRow, SuiteRow

Column = InstrumentedAttribute[str] | InstrumentedAttribute[str | None]

KEPT: tuple[Column, ...] = (
    BatchRow.submitted_artifact,
    BatchRow.artifact,
    BatchRow.quarantine_artifact,
    MinedRow.artifact,
    SuiteRow.artifact,
    EvaluationRow.artifact,
)
"""Kept for ever. Of checkpoints, retention deletes the weights and old states; the rows stay."""


def named(session: Session) -> set[str]:
    """Ids of all artifacts that the ledger counts on."""
    found = {row for column in KEPT for row in session.scalars(select(column).where(column.is_not(None)))}
    for column in (CheckpointRow.artifact, CheckpointRow.state_artifact):
        found |= set(session.scalars(select(column).where(CheckpointRow.state == "saved", column.is_not(None))))
    return {artifact for artifact in found if artifact is not None}

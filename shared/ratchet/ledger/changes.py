"""Whether anything in the ledger has changed since it was last read, for readers that would otherwise read all again.

It does not tell what has changed.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import (
    BatchRow,
    ClaimRow,
    DeadLetterRow,
    DeploymentRow,
    LineageRow,
    OutboxRow,
    ServingRow,
    TaskRow,
    VerdictRow,
)


def fingerprint(session: Session) -> tuple[Any, ...]:
    """Values of which at least one differs once anything but heartbeats has changed."""
    newest = (VerdictRow.id, OutboxRow.seq, DeadLetterRow.id, DeploymentRow.id)
    parts = [select(func.max(column)).scalar_subquery() for column in newest]
    parts += [
        select(func.count()).where(DeadLetterRow.resolved_at.is_not(None)).scalar_subquery(),
        select(func.sum(ClaimRow.token)).where(ClaimRow.owner.is_not(None)).scalar_subquery(),
        select(func.max(TaskRow.updated_at)).scalar_subquery(),
        select(func.max(LineageRow.updated_at)).scalar_subquery(),
        select(func.max(ServingRow.actual_at)).scalar_subquery(),
        select(func.max(BatchRow.submitted_at)).scalar_subquery(),
    ]
    return tuple(session.execute(select(*parts)).one())

"""What was to be live from when to when, and why; between these, what people forbade and allowed."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import CheckpointRow, DeploymentRow

CHANGES = ("base", "deploy", "rollback")
"""Actions that put another checkpoint in the champion's place. The others: freeze, unfreeze, unbar, fence."""

BY_HAND = "by hand: "
"""How the reason of a human's act begins."""


@dataclass(frozen=True)
class Entry:
    """One act. ``until_at`` is when the next change ended it; None for what lasts, and for what changes nothing."""

    action: str
    checkpoint_id: str
    ordinal: int
    previous_id: str | None
    reason: str
    token: int
    at: float
    until_at: float | None

    @property
    def changes_champion(self) -> bool:
        return self.action in CHANGES


def history(session: Session) -> list[Entry]:
    """All acts, the first one first."""
    rows = session.execute(
        select(DeploymentRow, CheckpointRow.ordinal)
        .join(CheckpointRow, CheckpointRow.id == DeploymentRow.checkpoint_id)
        .order_by(DeploymentRow.id.desc())
    )
    entries: list[Entry] = []
    ends_at: float | None = None
    for row, ordinal in rows:
        is_change = row.action in CHANGES
        entries.append(
            Entry(
                action=row.action,
                checkpoint_id=row.checkpoint_id,
                ordinal=ordinal,
                previous_id=row.previous_id,
                reason=row.reason,
                token=row.token,
                at=row.created_at,
                until_at=ends_at if is_change else None,
            )
        )
        ends_at = row.created_at if is_change else ends_at
    return entries[::-1]


def is_proved(session: Session, checkpoint_id: str) -> bool:
    """The base model needs no proof; any other one has been deployed by the gate, or it has not."""
    if session.get_one(CheckpointRow, checkpoint_id).ordinal == 0:
        return True
    query = select(DeploymentRow.reason).where(
        DeploymentRow.checkpoint_id == checkpoint_id, DeploymentRow.action == "deploy"
    )
    return any(not reason.startswith(BY_HAND) for reason in session.scalars(query))

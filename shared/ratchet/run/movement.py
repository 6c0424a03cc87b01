"""Whether anything still moves: verdicts, events, progress of claims."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import ClaimRow, EvaluationRow, LineageRow, OutboxRow, VerdictRow

STALL_S = 600.0
"""A run that counts cycles gives up when nothing has moved for so long."""

Trace = tuple[int, int, int, int]


@dataclass
class Movement:
    """Remembers when the ledger last changed in a way that work changes it."""

    trace: Trace | None = None
    moved_at: float = field(default_factory=time.monotonic)

    def look(self, session: Session) -> float:
        """Seconds for which nothing has moved. A pause by hand is not a standstill."""
        paused = session.scalar(select(LineageRow.paused).limit(1))
        trace = (
            session.scalar(select(func.max(VerdictRow.id))) or 0,
            session.scalar(select(func.max(OutboxRow.seq))) or 0,
            session.scalar(select(func.sum(ClaimRow.token + ClaimRow.progress))) or 0,
            session.scalar(select(func.count()).select_from(EvaluationRow)) or 0,
        )
        if trace != self.trace or paused:
            self.trace, self.moved_at = trace, time.monotonic()
        return time.monotonic() - self.moved_at

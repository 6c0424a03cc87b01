"""Whether anything still moves: verdicts, events, progress of claims."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import Claim, Evaluation, Line, Outbox, Verdict

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
        paused = session.scalar(select(Line.paused).limit(1))
        trace = (
            session.scalar(select(func.max(Verdict.id))) or 0,
            session.scalar(select(func.max(Outbox.seq))) or 0,
            session.scalar(select(func.sum(Claim.token + Claim.progress))) or 0,
            session.scalar(select(func.count()).select_from(Evaluation)) or 0,
        )
        if trace != self.trace or paused:
            self.trace, self.moved_at = trace, time.monotonic()
        return time.monotonic() - self.moved_at

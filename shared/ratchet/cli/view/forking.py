"""Forks as people look at them: both arms with what they were trained on and how they did, and the decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.ledger.forks import branches
from ratchet.ledger.suites import evaluation
from ratchet.ledger.tables import Branch, Checkpoint, Fork, SuiteRow


@dataclass(frozen=True)
class BranchView:
    """One arm. ``ordinal`` and ``tokens`` are those of its tip, once there is one; ``right`` of ``items`` on the probe
    suite in force, once it is tested."""

    arm: str
    batch_id: str | None
    ordinal: int | None
    tokens: int | None
    right: int | None
    items: int | None

    @property
    def said(self) -> str:
        """``adaptive #7: 52,000 tokens, 40 of 90 right``."""
        if self.ordinal is None:
            return f"{self.arm}: not trained yet"
        score = "not tested yet" if self.items is None else f"{self.right} of {self.items} right"
        return f"{self.arm} #{self.ordinal}: {self.tokens:,} tokens, {score}"


@dataclass(frozen=True)
class ForkView:
    """A fork. ``parent`` is the ordinal of the checkpoint that both arms were trained from, once training has begun."""

    id: int
    state: str
    parent: int | None
    branches: tuple[BranchView, ...]
    winner: int | None
    numbers: Mapping[str, Any]
    reason: str
    opened_at: float
    closed_at: float | None

    @property
    def difference(self) -> str:
        """The challenger's rate less the best arm's, in points, with its range; empty while it is not decided."""
        found = self.numbers
        if not found:
            return ""
        effect = 100 * (found["gains"] - found["losses"]) / found["items"]
        return f"{effect:+.1f} ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"

    @property
    def outcome(self) -> str:
        """``decided for adaptive``."""
        if self.state != "decided" or self.winner is None:
            return self.state
        return f"decided for {self.branches[self.winner].arm}"


def read_forks(session: Session, limit: int | None = None) -> tuple[ForkView, ...]:
    """The newest forks, the newest first."""
    rows = session.scalars(select(Fork).order_by(Fork.id.desc()).limit(limit))
    return tuple(_fork(session, row) for row in rows)


def _fork(session: Session, row: Fork) -> ForkView:
    parent = session.get(Checkpoint, row.parent_id) if row.parent_id else None
    return ForkView(
        id=row.id,
        state=row.state,
        parent=parent.ordinal if parent is not None else None,
        branches=tuple(_branch(session, branch, parent) for branch in branches(session, row.id)),
        winner=row.winner,
        numbers=row.numbers,
        reason=row.reason,
        opened_at=row.opened_at,
        closed_at=row.closed_at,
    )


def _branch(session: Session, row: Branch, parent: Checkpoint | None) -> BranchView:
    tip = session.get(Checkpoint, row.tip_id) if row.tip_id else None
    before = parent.tokens if tip is not None and parent is not None and tip.tokens >= parent.tokens else 0
    suite = session.scalar(select(SuiteRow.id).where(SuiteRow.pool == "probe", SuiteRow.retired_at.is_(None)).limit(1))
    record = evaluation(session, tip.id, suite) if tip is not None and suite is not None else None
    return BranchView(
        arm=row.arm,
        batch_id=row.batch_id,
        ordinal=tip.ordinal if tip is not None else None,
        tokens=tip.tokens - before if tip is not None else None,
        right=record.correct if record is not None else None,
        items=record.items if record is not None else None,
    )

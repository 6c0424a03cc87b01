"""The workers that registered themselves: which are there, which fail, and which wait for something."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import WorkerRow

FORGOTTEN_S = 86_400.0
"""A worker that has not been seen for so long is history."""

PRESENT_S = 120.0
"""Every worker says that it is there twice a minute (control.timer_s); one seen so lately is taken to be there. One
that fails at its start is tried again more often than that."""

ABSENT = ("stopping", "stopped", "failed")


def expected() -> ColumnElement[bool]:
    """That it is there, or should be: it neither said that it stops nor failed."""
    return WorkerRow.state.not_in(ABSENT)


def failing(session: Session, now: float) -> list[WorkerRow]:
    """Those that failed when they were started last, and will be again.

    One whose processes die early runs when it is looked at, and its error says how the one before ended: it is among
    them from the second death in a row on.
    """
    dies_again = and_(WorkerRow.state == "running", WorkerRow.failures >= 2, WorkerRow.error.is_not(None))
    return _lately(session, or_(WorkerRow.state == "failed", dies_again), now)


def waiting(session: Session, now: float) -> list[WorkerRow]:
    """Those that wait for something that is no fault of their subjects."""
    return _lately(session, WorkerRow.state == "waiting", now)


def last_line(error: str | None) -> str:
    """What a traceback ends with."""
    lines = (error or "").strip().split("\n")
    return lines[-1].strip()


def _lately(session: Session, condition: ColumnElement[bool], now: float) -> list[WorkerRow]:
    query = select(WorkerRow).where(condition, WorkerRow.seen_at > now - PRESENT_S)
    return list(session.scalars(query.order_by(WorkerRow.name)))

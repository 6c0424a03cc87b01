"""Numbers that only grow."""

from __future__ import annotations

from sqlalchemy.orm import Session

from ratchet.ledger.tables import CounterRow


def next_value(session: Session, name: str) -> int:
    """The next number of that counter, from 1. Only inside a write transaction, which excludes other writers."""
    row = session.get(CounterRow, name)
    if row is None:
        row = CounterRow(name=name, value=0)
        session.add(row)
    row.value += 1
    session.flush()
    return row.value


def value(session: Session, name: str) -> int:
    """The last number given out; 0 before the first."""
    row = session.get(CounterRow, name)
    return row.value if row is not None else 0


def raise_to(session: Session, name: str, least: int) -> bool:
    """Let the next number be higher than ``least``; whether that changed anything. Inside a write transaction."""
    if value(session, name) >= least:
        return False
    session.merge(CounterRow(name=name, value=least))
    session.flush()
    return True

"""Numbers that only grow."""

from __future__ import annotations

from sqlalchemy.orm import Session

from ratchet.ledger.tables import Counter


def next_value(session: Session, name: str) -> int:
    """The next number of that counter, from 1. Only inside a write transaction, which excludes other writers."""
    row = session.get(Counter, name)
    if row is None:
        row = Counter(name=name, value=0)
        session.add(row)
    row.value += 1
    session.flush()
    return row.value

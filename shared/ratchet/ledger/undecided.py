"""What still lacks a system's verdict."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, not_, select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import DeadLetterRow, VerdictRow

CHUNK = 1_000
"""Ids in one query; an engine takes 32,766 (SQLite) or 65,535 (PostgreSQL) values and refuses more."""


def lacks_verdict(system: str, kind: str, subject_id: Any) -> ColumnElement[bool]:
    """An SQL condition: no verdict of that system on that subject, and no open dead letter.

    ``subject_id`` is a column or expression of the enclosing query.
    """
    decided = exists().where(
        and_(VerdictRow.system == system, VerdictRow.subject_kind == kind, VerdictRow.subject_id == subject_id)
    )
    dead = exists().where(
        and_(
            DeadLetterRow.system == system,
            DeadLetterRow.subject_kind == kind,
            DeadLetterRow.subject_id == subject_id,
            DeadLetterRow.resolved_at.is_(None),
        )
    )
    return and_(not_(decided), not_(dead))


def settled(session: Session, system: str, subjects: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of the (kind, id) pairs that have a verdict of the system or an open dead letter."""
    wanted = set(subjects)
    ids = sorted({subject_id for _, subject_id in wanted})
    found: set[tuple[str, str]] = set()
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        verdicts = select(VerdictRow.subject_kind, VerdictRow.subject_id).where(
            VerdictRow.system == system, VerdictRow.subject_id.in_(some)
        )
        dead = select(DeadLetterRow.subject_kind, DeadLetterRow.subject_id).where(
            DeadLetterRow.system == system, DeadLetterRow.subject_id.in_(some), DeadLetterRow.resolved_at.is_(None)
        )
        found.update((kind, subject_id) for query in (verdicts, dead) for kind, subject_id in session.execute(query))
    return found & wanted

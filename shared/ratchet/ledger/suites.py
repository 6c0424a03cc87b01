"""The suites in force, and the records of checkpoints on them."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.errors import Refused
from ratchet.ledger.tables import Checkpoint, Evaluation, SuiteRow

STANDING = ("probe", "eval")
"""Pools that testing runs for every checkpoint; ``confirm`` only on request."""


def current(session: Session, pool: str) -> SuiteRow:
    """The suite of the pool that is in force."""
    query = select(SuiteRow).where(SuiteRow.pool == pool, SuiteRow.retired_at.is_(None))
    row = session.scalar(query.order_by(SuiteRow.ordinal.desc()).limit(1))
    if row is None:
        raise Refused(f"there is no {pool} suite yet: `ratchet run` builds the suites.")
    return row


def suite_named(session: Session, name: str) -> SuiteRow:
    """The suite that a person means: a pool's suite in force, or the beginning of an id. Refused if not one fits."""
    if name in (*STANDING, "confirm"):
        return current(session, name)
    fitting = select(SuiteRow).where(SuiteRow.id.startswith(name, autoescape=True)).limit(2)
    rows = session.scalars(fitting).all() if len(name) >= 4 else []
    if len(rows) != 1:
        raise Refused(
            f"{'no suite' if not rows else 'more than one suite'} begins with {name!r}: `ratchet suite list` has them."
        )
    return rows[0]


def evaluation(session: Session, checkpoint_id: str, suite_id: str) -> Evaluation | None:
    """The checkpoint's record on that suite, if testing has made it."""
    query = select(Evaluation).where(Evaluation.checkpoint_id == checkpoint_id, Evaluation.suite_id == suite_id)
    return session.scalar(query)


def evaluated(session: Session, pool: str) -> list[Evaluation]:
    """All records on the pool's suite in force, the newest checkpoint first."""
    query = select(Evaluation).join(Checkpoint, Checkpoint.id == Evaluation.checkpoint_id)
    query = query.where(Evaluation.suite_id == current(session, pool).id, Checkpoint.state != "broken")
    return list(session.scalars(query.order_by(Checkpoint.ordinal.desc())))

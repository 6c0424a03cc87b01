"""Current problems: artifacts found damaged, and workers that fail or wait.

It only records and reads them; what to do is decided elsewhere.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Select, and_, or_, select, update
from sqlalchemy.orm import Session

from ratchet.ledger.ledger import Transaction
from ratchet.ledger.tables import BatchRow, CheckpointRow, DamageRow, MinedRow, WorkerRow

DAMAGE_SHOWN_S = 86_400.0
"""Damage is shown for a day after it was last found, even if it was repaired since: a disk may be failing."""

LISTED_S = 86_400.0
"""A worker that has not been seen for this long is not listed."""

PRESENT_S = 120.0
"""A worker seen within this time counts as present. Each worker updates its row twice a minute, and a failing one is
restarted more often than that."""

ABSENT = ("stopping", "stopped", "failed")


def artifacts_of(session: Session, kind: str, subject_id: str) -> set[str]:
    """The subject's own artifacts, which no other subject needs.

    Requests and mined sets are named after their checkpoint; suites are shared. A checkpoint's records are left out,
    since an unreadable one is requested again.
    """
    own: tuple[str | None, ...] = ()
    if kind == "batch":
        if (batch := session.get(BatchRow, subject_id)) is not None:
            own = (batch.submitted_artifact, batch.artifact, batch.quarantine_artifact)
    elif (checkpoint := session.get(CheckpointRow, subject_id.partition("/")[0])) is not None:
        mined = session.get(MinedRow, checkpoint.id)
        own = (checkpoint.artifact, checkpoint.state_artifact, mined.artifact if mined is not None else None)
    return {artifact for artifact in own if artifact is not None}


def record_damage(
    tx: Transaction, artifact: str, error: str, system: str, kind: str, subject_id: str, consequence: str
) -> None:
    """Record that the system found a damaged artifact while working on the subject, in one row until it is resolved."""
    known = tx.session.scalar(_open_damages(system, kind, subject_id).where(DamageRow.artifact == artifact).limit(1))
    if known is not None:
        known.error, known.consequence, known.last_seen_at = error, consequence, tx.now
        return
    tx.session.add(
        DamageRow(
            artifact=artifact,
            error=error,
            system=system,
            subject_kind=kind,
            subject_id=subject_id,
            consequence=consequence,
            found_at=tx.now,
            last_seen_at=tx.now,
            resolved_at=None,
        )
    )


def resolve_damage(tx: Transaction, system: str, kind: str, subject_id: str) -> None:
    """Mark all damage that the system found while working on the subject as resolved."""
    ids = list(tx.session.scalars(_open_damages(system, kind, subject_id).with_only_columns(DamageRow.id)))
    if ids:
        tx.session.execute(update(DamageRow).where(DamageRow.id.in_(ids)).values(resolved_at=tx.now))


def damages_since(session: Session, since: float) -> list[DamageRow]:
    """Unresolved damage found since then, the newest first."""
    query = select(DamageRow).where(DamageRow.resolved_at.is_(None), DamageRow.last_seen_at > since)
    return list(session.scalars(query.order_by(DamageRow.id.desc())))


def is_expected() -> ColumnElement[bool]:
    """An SQL condition: the worker should be present, since it neither stopped nor failed."""
    return WorkerRow.state.not_in(ABSENT)


def failing_workers(session: Session, now: float) -> list[WorkerRow]:
    """Workers whose last start failed, and will be tried again.

    A worker whose processes die early has the state running, with the previous process's end as its error. It counts
    from the second early death in a row.
    """
    dies_again = and_(WorkerRow.state == "running", WorkerRow.failures >= 2, WorkerRow.error.is_not(None))
    return _recent(session, or_(WorkerRow.state == "failed", dies_again), now)


def expected_workers(session: Session, now: float) -> tuple[list[WorkerRow], list[WorkerRow]]:
    """Those that are present and those that are missing, of all that did not report a stop or a failure."""
    query = select(WorkerRow).where(is_expected(), WorkerRow.seen_at > now - LISTED_S).order_by(WorkerRow.name)
    rows = list(session.scalars(query))
    return [w for w in rows if now - w.seen_at < PRESENT_S], [w for w in rows if now - w.seen_at >= PRESENT_S]


def waiting_workers(session: Session, now: float) -> list[WorkerRow]:
    """Workers that wait for something other than their subjects, such as space on a full disk."""
    return _recent(session, WorkerRow.state == "waiting", now)


def last_line(error: str | None) -> str:
    """The last line of a traceback."""
    lines = (error or "").strip().split("\n")
    return lines[-1].strip()


def _open_damages(system: str, kind: str, subject_id: str) -> Select[DamageRow]:
    return select(DamageRow).where(
        DamageRow.system == system,
        DamageRow.subject_kind == kind,
        DamageRow.subject_id == subject_id,
        DamageRow.resolved_at.is_(None),
    )


def _recent(session: Session, condition: ColumnElement[bool], now: float) -> list[WorkerRow]:
    query = select(WorkerRow).where(condition, WorkerRow.seen_at > now - PRESENT_S)
    return list(session.scalars(query.order_by(WorkerRow.name)))

"""Artifacts that were found damaged: whose they are, and what was done about it."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Select, and_, or_, select, update
from sqlalchemy.orm import Session

from ratchet.ledger.ledger import Transaction
from ratchet.ledger.tables import BatchRow, CheckpointRow, DamageRow, MinedRow, WorkerRow

TOLD_S = 86_400.0
"""What was found damaged is told for a day after it was met last, unless it is mended before: a disk may be failing."""


def artifacts_of(session: Session, kind: str, subject_id: str) -> set[str]:
    """The subject's own artifacts, on which no other subject depends to be decided.

    A request or a mined set is named after its checkpoint, the suite that it is about is everybody's. A checkpoint's
    records are not counted in: whoever cannot read one has it made anew.
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
    """Note that the system met a damaged artifact over the subject: one row as long as it is not resolved."""
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
    """Whatever the system met over the subject does not stand in its way any more."""
    ids = list(tx.session.scalars(_open_damages(system, kind, subject_id).with_only_columns(DamageRow.id)))
    if ids:
        tx.session.execute(update(DamageRow).where(DamageRow.id.in_(ids)).values(resolved_at=tx.now))


def damages_since(session: Session, since: float) -> list[DamageRow]:
    """Those met since then and not resolved, the newest first."""
    query = select(DamageRow).where(DamageRow.resolved_at.is_(None), DamageRow.last_seen_at > since)
    return list(session.scalars(query.order_by(DamageRow.id.desc())))


def _open_damages(system: str, kind: str, subject_id: str) -> Select[DamageRow]:
    return select(DamageRow).where(
        DamageRow.system == system,
        DamageRow.subject_kind == kind,
        DamageRow.subject_id == subject_id,
        DamageRow.resolved_at.is_(None),
    )


FORGOTTEN_S = 86_400.0
"""A worker that has not been seen for so long is history."""

PRESENT_S = 120.0
"""Every worker says that it is there twice a minute (control.timer_s); one seen so lately is taken to be there. One
that fails at its start is tried again more often than that."""

ABSENT = ("stopping", "stopped", "failed")


def is_expected() -> ColumnElement[bool]:
    """That it is there, or should be: it neither said that it stops nor failed."""
    return WorkerRow.state.not_in(ABSENT)


def failing_workers(session: Session, now: float) -> list[WorkerRow]:
    """Those that failed when they were started last, and will be again.

    One whose processes die early runs when it is looked at, and its error says how the one before ended: it is among
    them from the second death in a row on.
    """
    dies_again = and_(WorkerRow.state == "running", WorkerRow.failures >= 2, WorkerRow.error.is_not(None))
    return _lately(session, or_(WorkerRow.state == "failed", dies_again), now)


def waiting_workers(session: Session, now: float) -> list[WorkerRow]:
    """Those that wait for something that is no fault of their subjects."""
    return _lately(session, WorkerRow.state == "waiting", now)


def last_line(error: str | None) -> str:
    """What a traceback ends with."""
    lines = (error or "").strip().split("\n")
    return lines[-1].strip()


def _lately(session: Session, condition: ColumnElement[bool], now: float) -> list[WorkerRow]:
    query = select(WorkerRow).where(condition, WorkerRow.seen_at > now - PRESENT_S)
    return list(session.scalars(query.order_by(WorkerRow.name)))

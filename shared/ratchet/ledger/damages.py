"""Artifacts that were found damaged: whose they are, and what was done about it."""

from __future__ import annotations

from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from ratchet.ledger.ledger import Transaction
from ratchet.ledger.tables import Batch, Checkpoint, Damage


def artifacts_of(session: Session, kind: str, subject_id: str) -> set[str]:
    """The subject's own artifacts, on which no other subject depends to be decided.

    A request or a mined set is named after its checkpoint, the suite that it is about is everybody's.
    """
    if kind == "batch":
        batch = session.get(Batch, subject_id)
        own = (batch.submitted_artifact, batch.artifact, batch.quarantine_artifact) if batch is not None else ()
    else:
        checkpoint = session.get(Checkpoint, subject_id.partition("/")[0])
        own = (checkpoint.artifact, checkpoint.state_artifact) if checkpoint is not None else ()
    return {artifact for artifact in own if artifact is not None}


def record(
    tx: Transaction, artifact: str, error: str, system: str, kind: str, subject_id: str, consequence: str
) -> None:
    """Note that the system met a damaged artifact over the subject, once as long as it is not resolved."""
    if tx.session.scalar(_open(system, kind, subject_id).where(Damage.artifact == artifact).limit(1)) is not None:
        return
    tx.session.add(
        Damage(
            artifact=artifact,
            error=error,
            system=system,
            subject_kind=kind,
            subject_id=subject_id,
            consequence=consequence,
            found_at=tx.now,
            resolved_at=None,
        )
    )


def resolve(tx: Transaction, system: str, kind: str, subject_id: str) -> None:
    """Whatever the system met over the subject does not stand in its way any more."""
    ids = list(tx.session.scalars(_open(system, kind, subject_id).with_only_columns(Damage.id)))
    if ids:
        tx.session.execute(update(Damage).where(Damage.id.in_(ids)).values(resolved_at=tx.now))


def unresolved(session: Session) -> list[Damage]:
    """The newest first."""
    return list(session.scalars(select(Damage).where(Damage.resolved_at.is_(None)).order_by(Damage.id.desc())))


def _open(system: str, kind: str, subject_id: str) -> Select[tuple[Damage]]:
    return select(Damage).where(
        Damage.system == system,
        Damage.subject_kind == kind,
        Damage.subject_id == subject_id,
        Damage.resolved_at.is_(None),
    )

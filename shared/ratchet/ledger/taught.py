"""What correction batches taught and what came of it, as the ledger has it at this moment."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.evaluation.taught import Flips, Taught, stopped_classes
from ratchet.ledger.tables import Batch, Impact
from ratchet.settings.correction import CorrectionSettings


def stopped_now(session: Session, settings: CorrectionSettings, more: Iterable[Impact] = ()) -> dict[str, str]:
    """Classes that are given no lessons for now, with the reason. ``more`` are effects not yet in the ledger."""
    return stopped_classes(taught_before(session, more), settings.patience, settings.pause)


def taught_before(session: Session, more: Iterable[Impact] = ()) -> list[Taught]:
    """Every correction batch that was trained, the oldest first, with the newest measurement of each class."""
    flips: dict[str, dict[str, Flips]] = {}
    for row in (*session.scalars(select(Impact).order_by(Impact.created_at, Impact.checkpoint_id)), *more):
        flips.setdefault(row.batch_id, {})[row.error_class] = (row.gains, row.losses)
    query = select(Batch).where(Batch.origin == "correction", Batch.state == "trained").order_by(Batch.submitted_at)
    return [
        Taught(frozenset(batch.provenance.get("classes", {})), flips.get(batch.id, {}))
        for batch in session.scalars(query)
    ]

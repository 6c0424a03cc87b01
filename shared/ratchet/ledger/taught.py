"""What correction batches taught and what came of it, as the ledger has it at this moment."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.evaluation.taught import Flips, Taught, stopped_classes
from ratchet.ledger.tables import BatchRow, ImpactRow
from ratchet.settings.correction import CorrectionSettings

REMEMBERED = 200
"""Correction batches that are looked back on, beside those of the pause: what none of them taught has rested."""


def stopped_now(session: Session, settings: CorrectionSettings, more: Iterable[ImpactRow] = ()) -> dict[str, str]:
    """Classes that are given no lessons for now, with the reason. ``more`` are effects not yet in the ledger."""
    return stopped_classes(taught_before(session, more, REMEMBERED + settings.pause), settings.patience, settings.pause)


def taught_before(session: Session, more: Iterable[ImpactRow] = (), most: int = REMEMBERED) -> list[Taught]:
    """The newest ``most`` correction batches that were trained, the oldest first, with the newest measurement of each
    class."""
    query = select(BatchRow).where(BatchRow.origin == "correction", BatchRow.state == "trained")
    batches = session.scalars(query.order_by(BatchRow.submitted_at.desc()).limit(most)).all()[::-1]
    measured = select(ImpactRow).where(ImpactRow.batch_id.in_([batch.id for batch in batches]))
    flips: dict[str, dict[str, Flips]] = {}
    for row in (*session.scalars(measured.order_by(ImpactRow.created_at, ImpactRow.checkpoint_id)), *more):
        flips.setdefault(row.batch_id, {})[row.error_class] = (row.gains, row.losses)
    return [Taught(frozenset(batch.provenance.get("classes", {})), flips.get(batch.id, {})) for batch in batches]

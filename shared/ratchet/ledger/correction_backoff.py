"""Which error classes are taught no more for now: lessons that did not make them rarer are not repeated without end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import BatchRow, ImpactRow
from ratchet.settings.correction import CorrectionSettings

Flips = tuple[int, int]
"""Gains and losses: items that lost an error class, and items that came to show it."""


@dataclass(frozen=True)
class CorrectionBatch:
    """A correction batch: the classes that it taught, and its newest measured flips by class."""

    classes: frozenset[str]
    flips: Mapping[str, Flips]


def backed_off_classes(history: Sequence[CorrectionBatch], patience: int, pause: int) -> dict[str, str]:
    """Classes that get no lessons for now, each with the reason. ``history`` has the oldest batch first.

    A class is stopped when the last ``patience`` measured batches that taught it did not make it rarer, gains and
    losses added up. It is tried again once ``pause`` correction batches have gone by without it.
    """
    measured: dict[str, list[Flips]] = defaultdict(list)
    last: dict[str, int] = {}
    for place, batch in enumerate(history):
        for name in batch.classes:
            last[name] = place
            if name in batch.flips:
                measured[name].append(batch.flips[name])
    stopped = {}
    for name, each in sorted(measured.items()):
        recent = each[-patience:]
        gains, losses = (sum(side) for side in zip(*recent, strict=True))
        rested = len(history) - 1 - last[name]
        if len(recent) == patience and gains <= losses and rested < pause:
            stopped[name] = f"{gains} gained, {losses} lost over {patience} correction batches"
    return stopped


REMEMBERED = 200
"""Correction batches that are looked back on, beside those of the pause: what none of them taught has rested."""


def classes_in_backoff(
    session: Session, settings: CorrectionSettings, more: Iterable[ImpactRow] = ()
) -> dict[str, str]:
    """Classes that are given no lessons for now, with the reason. ``more`` are effects not yet in the ledger."""
    return backed_off_classes(
        trained_corrections(session, more, REMEMBERED + settings.pause), settings.patience, settings.pause
    )


def trained_corrections(
    session: Session, more: Iterable[ImpactRow] = (), most: int = REMEMBERED
) -> list[CorrectionBatch]:
    """The newest ``most`` correction batches that were trained, the oldest first, with the newest measurement of each
    class."""
    query = select(BatchRow).where(BatchRow.origin == "correction", BatchRow.state == "trained")
    batches = session.scalars(query.order_by(BatchRow.submitted_at.desc()).limit(most)).all()[::-1]
    measured = select(ImpactRow).where(ImpactRow.batch_id.in_([batch.id for batch in batches]))
    flips: dict[str, dict[str, Flips]] = {}
    for row in (*session.scalars(measured.order_by(ImpactRow.created_at, ImpactRow.checkpoint_id)), *more):
        flips.setdefault(row.batch_id, {})[row.error_class] = (row.gains, row.losses)
    return [
        CorrectionBatch(frozenset(batch.provenance.get("classes", {})), flips.get(batch.id, {})) for batch in batches
    ]

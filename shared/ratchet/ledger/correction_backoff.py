"""Correction back-off: error classes that temporarily get no correction examples, because the last ones did not
help."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import BatchRow, ImpactRow

GainsAndLosses = tuple[int, int]
"""Probe items that stopped showing an error class, and items that started to."""

PATIENCE = 3
"""Measured batches without a gain after which a class is backed off; one or two may be chance."""

PAUSE = 6
"""Correction batches without such a class before it is tried again, when the model has changed."""

HISTORY = 200
"""Correction batches that are read in addition to those of a pause."""


@dataclass(frozen=True)
class CorrectionBatch:
    """A trained correction batch: the error classes it had examples for, and its newest measured impact by class."""

    classes: frozenset[str]
    impacts: Mapping[str, GainsAndLosses]


def backed_off_classes(
    history: Sequence[CorrectionBatch], patience: int = PATIENCE, pause: int = PAUSE
) -> dict[str, str]:
    """Classes that get no examples for now, each with the reason. ``history`` has the oldest batch first.

    A class is backed off when the last ``patience`` measured batches with examples for it did not make it rarer, gains
    and losses added up. It is tried again once ``pause`` correction batches have gone by without it.
    """
    measured: dict[str, list[GainsAndLosses]] = defaultdict(list)
    last: dict[str, int] = {}
    for place, batch in enumerate(history):
        for name in batch.classes:
            last[name] = place
            if name in batch.impacts:
                measured[name].append(batch.impacts[name])
    backed_off = {}
    for name, each in sorted(measured.items()):
        recent = each[-patience:]
        gains, losses = (sum(side) for side in zip(*recent, strict=True))
        sat_out = len(history) - 1 - last[name]
        if len(recent) == patience and gains <= losses and sat_out < pause:
            backed_off[name] = f"{gains} gained, {losses} lost over {patience} correction batches"
    return backed_off


def classes_in_backoff(session: Session, more: Iterable[ImpactRow] = ()) -> dict[str, str]:
    """As ``backed_off_classes``, for the ledger's history. ``more`` are impacts not yet in the ledger."""
    return backed_off_classes(trained_corrections(session, more, HISTORY + PAUSE))


def trained_corrections(session: Session, more: Iterable[ImpactRow] = (), most: int = HISTORY) -> list[CorrectionBatch]:
    """The newest ``most`` trained correction batches, the oldest first, with the newest impact on each class."""
    columns = select(BatchRow.id, BatchRow.provenance)  # and not the reports, which are as long
    query = columns.where(BatchRow.origin == "correction", BatchRow.state == "trained")
    batches = session.execute(query.order_by(BatchRow.submitted_at.desc()).limit(most)).all()[::-1]
    measured = select(ImpactRow).where(ImpactRow.batch_id.in_([batch.id for batch in batches]))
    impacts: dict[str, dict[str, GainsAndLosses]] = {}
    for row in (*session.scalars(measured.order_by(ImpactRow.created_at, ImpactRow.checkpoint_id)), *more):
        impacts.setdefault(row.batch_id, {})[row.error_class] = (row.gains, row.losses)
    return [
        CorrectionBatch(frozenset(batch.provenance.get("classes", {})), impacts.get(batch.id, {})) for batch in batches
    ]

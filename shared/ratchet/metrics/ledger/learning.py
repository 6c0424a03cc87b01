"""What the newest words of mining, correction, diversity and curriculum were."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import CoverageRow, CurriculumRow, MinedRow, VerdictRow
from ratchet.metrics.exposition import gauge, single
from ratchet.settings import Settings

RECENT = 50
"""Verdicts of correction among which the newest that names stopped classes is looked for."""


def learning(session: Session, _now: float, _settings: Settings) -> Iterator[GaugeMetricFamily]:
    """One sample of each, of the newest row; none before there is one."""
    yield from _mining(session)
    stopped = _stopped(session)
    yield single("ratchet_correction_stopped_classes", "Error classes that get no lessons for now.", stopped)
    covered: dict[str, Any] = (
        session.scalar(select(CoverageRow.numbers).order_by(CoverageRow.created_at.desc()).limit(1)) or {}
    )
    yield single(
        "ratchet_coverage_entropy_ratio", "How evenly the newest batch covers its levels.", covered.get("entropy")
    )
    yield single(
        "ratchet_coverage_novelty_ratio", "Share of its items that no earlier batch had.", covered.get("novelty")
    )
    newest = session.scalar(select(CurriculumRow.experiment).order_by(CurriculumRow.id.desc()).limit(1)) or {}
    shares = [((str(arm["name"]),), float(arm["share"])) for arm in newest.get("arms", ())]
    yield gauge("ratchet_curriculum_share_ratio", "Share of the batches by arm.", ("arm",), shares)


def _mining(session: Session) -> Iterator[GaugeMetricFamily]:
    row = session.scalar(select(MinedRow).order_by(MinedRow.created_at.desc()).limit(1))
    found = row.by_category if row is not None else {}
    items = [((str(name),), float(count)) for name, count in found.items()]
    yield gauge("ratchet_mined_items", "Items of the newest mined set.", ("category",), items)
    told = (row.numbers.get("follow_up") if row is not None else None) or {}
    shares = [((kind,), told[f"{kind}_failed"] / told[kind]) for kind in ("mined", "random") if told.get(kind)]
    text = "Share of the set before that is failed again, and of random items of its levels."
    yield gauge("ratchet_mined_failed_again_ratio", text, ("of",), shares)


def _stopped(session: Session) -> int | None:
    query = select(VerdictRow.numbers).where(
        VerdictRow.system == "correction", VerdictRow.subject_kind.in_(("mined", "impact"))
    )
    recent = session.scalars(query.order_by(VerdictRow.id.desc()).limit(RECENT))
    return next((len(numbers["stopped"]) for numbers in recent if "stopped" in numbers), None)

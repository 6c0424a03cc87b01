"""Reading the facts of a report from the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.cli.view.forking import read_forks
from ratchet.cli.view.reading import read_live, read_looks
from ratchet.ledger import Ledger
from ratchet.ledger.tables import Batch, Calibration, Checkpoint, Coverage, Curriculum, DeadLetter, Mined, Verdict
from ratchet.report.facts import Arm, BatchFacts, Calibrated, Cell, Facts, MinedItems, Mix
from ratchet.run.summary import read_changes
from ratchet.settings import Settings

_ARM = ("name", "share", "trials", "points", "low", "high", "best")


def read_facts(ledger: Ledger, settings: Settings) -> Facts:
    """All that the ledger holds of this home, from the base model on."""
    with ledger.read() as session:
        rows = session.scalars(select(Checkpoint).order_by(Checkpoint.ordinal)).all()
        ordinals = {row.id: row.ordinal for row in rows}
        plans = session.scalars(select(Curriculum).order_by(Curriculum.id)).all()
        return Facts(
            title=settings.model.path,
            written_at=ledger.now(),
            checkpoints=read_looks(session, rows),
            live=read_live(session),
            changes=read_changes(session, rows[0].created_at) if rows else (),
            reasons=_reasons(session, ordinals),
            calibrations=_calibrations(session, ordinals),
            mined=_mined(session, ordinals),
            batches=_batches(session),
            mixes=tuple(_mix(row) for row in plans),
            arms=_arms(plans[-1]) if plans else (),
            findings=tuple(plans[-1].experiment.get("report", ())) if plans else (),
            forks=read_forks(session)[::-1],
            dead=session.scalar(select(func.count()).select_from(DeadLetter).where(DeadLetter.resolved_at.is_(None)))
            or 0,
        )


def cells(counts: Mapping[str, int]) -> dict[Cell, int]:
    """``{"chain_sum/2": 40}`` by family and level."""
    found: dict[Cell, int] = {}
    for name, count in counts.items():
        family, slash, level = name.rpartition("/")
        if slash and level.isdigit():
            found[family, int(level)] = int(count)
    return found


def _reasons(session: Session, ordinals: Mapping[str, int]) -> dict[int, str]:
    """The deployer's last word on each checkpoint."""
    given = select(Verdict).where(Verdict.system == "deployment", Verdict.subject_kind == "checkpoint")
    return {ordinals[v.subject_id]: v.reason for v in session.scalars(given) if v.subject_id in ordinals}


def _calibrations(session: Session, ordinals: Mapping[str, int]) -> tuple[Calibrated, ...]:
    rows = session.scalars(select(Calibration)).all()
    found = [Calibrated(ordinals[row.checkpoint_id], row.numbers) for row in rows if row.checkpoint_id in ordinals]
    return tuple(sorted(found, key=lambda calibrated: calibrated.ordinal))


def _mined(session: Session, ordinals: Mapping[str, int]) -> tuple[MinedItems, ...]:
    rows = session.scalars(select(Mined)).all()
    found = [MinedItems(ordinals[row.checkpoint_id], row.by_category) for row in rows if row.checkpoint_id in ordinals]
    return tuple(sorted(found, key=lambda mined: mined.ordinal))


def _batches(session: Session) -> tuple[BatchFacts, ...]:
    coverage = {row.batch_id: row.numbers for row in session.scalars(select(Coverage))}
    rows = session.scalars(select(Batch).order_by(Batch.submitted_at))
    return tuple(_batch(row, coverage.get(row.id, {})) for row in rows)


def _batch(row: Batch, coverage: Mapping[str, Any]) -> BatchFacts:
    return BatchFacts(
        id=row.id,
        origin=row.origin,
        state=row.state,
        examples=row.examples,
        lessons=int((row.provenance.get("counts") or {}).get("lessons", 0)),
        quarantined=row.quarantined,
        levels=cells(row.report.get("levels") or {}),
        reasons=dict(row.report.get("reasons") or {}),
        entropy=coverage.get("entropy"),
        novelty=coverage.get("novelty"),
        submitted_at=row.submitted_at,
    )


def _mix(row: Curriculum) -> Mix:
    shares = {(s["family"], int(s["level"])): float(s["weight"]) for s in row.mix.get("shares", ())}
    return Mix(row.created_at, shares, str(row.mix.get("strategy", "")))


def _arms(plan: Curriculum) -> tuple[Arm, ...]:
    """The arms that were tried, the one that teaches most first."""
    tried = [Arm(**{field: arm[field] for field in _ARM}) for arm in plan.experiment.get("arms", ()) if arm["trials"]]
    return tuple(sorted(tried, key=lambda arm: -arm.points))

"""The age of the oldest thing not done, by system: what each of the eleven waits for, and since when it waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import BatchRow, CheckpointRow, ClaimRow, EvaluationRequestRow, EvaluationRow, SuiteRow
from ratchet.ledger.undecided import lacks_verdict
from ratchet.metrics.exposition import gauge
from ratchet.settings import Settings

Waiting = Select[Any]
"""Selects since when each subject that a system has not decided on waits, in epoch seconds."""


def saved(system: str) -> Waiting:
    """Saved checkpoints."""
    return select(CheckpointRow.created_at).where(
        CheckpointRow.state == "saved", lacks_verdict(system, "checkpoint", CheckpointRow.id)
    )


def evaluated(system: str, pool: str, *, trained_only: bool = False) -> Waiting:
    """Checkpoints with a record on the pool's suite in force, since that record was made."""
    query = select(EvaluationRow.created_at).join(SuiteRow, SuiteRow.id == EvaluationRow.suite_id)
    query = query.join(CheckpointRow, CheckpointRow.id == EvaluationRow.checkpoint_id)
    return query.where(
        SuiteRow.pool == pool,
        SuiteRow.retired_at.is_(None),
        CheckpointRow.state != "broken",
        CheckpointRow.ordinal >= int(trained_only),
        lacks_verdict(system, "checkpoint", CheckpointRow.id),
    )


def submitted(system: str) -> Waiting:
    """Batches before the gate."""
    return select(BatchRow.submitted_at).where(
        BatchRow.state == "submitted", lacks_verdict(system, "batch", BatchRow.id)
    )


def admitted(system: str) -> Waiting:
    """Batches that have passed the gate."""
    return select(BatchRow.queued_at).where(BatchRow.artifact.is_not(None), lacks_verdict(system, "batch", BatchRow.id))


def queued(system: str) -> Waiting:
    """Batches that wait for training or are under way."""
    return select(BatchRow.queued_at).where(
        BatchRow.state.in_(("queued", "training")), lacks_verdict(system, "batch", BatchRow.id)
    )


WAITING: dict[str, Waiting] = {
    "training": queued("training"),
    "testing": saved("testing"),
    "regression": evaluated("regression", "eval"),
    "comparison": evaluated("comparison", "eval"),
    "calibration": evaluated("calibration", "eval"),
    "mining": evaluated("mining", "probe"),
    "correction": submitted("correction"),
    "diversity": admitted("diversity"),
    "curriculum": evaluated("curriculum", "probe"),
    "deployment": evaluated("deployment", "eval", trained_only=True),
}
"""Generation waits for nothing but the depth of the queue, which has gauges of its own."""


def undone(session: Session, now: float, _settings: Settings) -> Iterator[GaugeMetricFamily]:
    """Oldest and count of what waits for each system, and claims by system."""
    ages: list[tuple[tuple[str, ...], float]] = []
    counts: list[tuple[tuple[str, ...], float]] = []
    for system, waiting in WAITING.items():
        oldest, count = _oldest(session, waiting)
        ages.append(((system,), max(0.0, now - oldest) if oldest is not None else 0.0))
        counts.append(((system,), count))
    label = ("system",)
    yield gauge(
        "ratchet_undone_oldest_seconds", "Age of the oldest subject that waits for the system, 0 if none.", label, ages
    )
    yield gauge("ratchet_undone", "Subjects that wait for the system.", label, counts)
    yield from _claims(session, now)
    request = select(func.min(EvaluationRequestRow.created_at)).where(~_answered())
    asked_at = session.scalar(request)
    yield gauge(
        "ratchet_request_oldest_seconds",
        "Age of the oldest evaluation that was asked for and is not there, 0 if none.",
        (),
        [((), max(0.0, now - asked_at) if asked_at is not None else 0.0)],
    )


def _oldest(session: Session, waiting: Waiting) -> tuple[float | None, int]:
    since = waiting.subquery()
    oldest, count = session.execute(select(func.min(since.c[0]), func.count()).select_from(since)).one()
    return oldest, int(count)


def _answered() -> Any:
    return (
        select(EvaluationRow.id)
        .where(
            EvaluationRow.checkpoint_id == EvaluationRequestRow.checkpoint_id,
            EvaluationRow.suite_id == EvaluationRequestRow.suite_id,
        )
        .exists()
    )


def _claims(session: Session, now: float) -> Iterator[GaugeMetricFamily]:
    query = select(
        ClaimRow.system, func.count(), func.min(ClaimRow.claimed_at), func.sum(ClaimRow.failures + ClaimRow.kills)
    )
    rows = session.execute(query.where(ClaimRow.owner.is_not(None)).group_by(ClaimRow.system)).all()
    label = ("system",)
    yield gauge("ratchet_claims_held", "Subjects that a worker holds.", label, (((r[0],), float(r[1])) for r in rows))
    yield gauge(
        "ratchet_claim_oldest_seconds",
        "Time since the longest-held subject was claimed.",
        label,
        (((r[0],), max(0.0, now - r[2])) for r in rows),
    )
    yield gauge(
        "ratchet_claim_setbacks",
        "Failed tries and deaths of the subjects that a worker holds.",
        label,
        (((r[0],), float(r[3])) for r in rows),
    )

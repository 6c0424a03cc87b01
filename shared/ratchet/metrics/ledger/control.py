"""The plumbing: workers and when they were last seen, dead letters, events not yet relayed."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.ledger import damages, workers
from ratchet.ledger.tables import DeadLetterRow, OutboxRow, WorkerRow
from ratchet.ledger.workers import FORGOTTEN_S, PRESENT_S
from ratchet.metrics.exposition import gauge, single
from ratchet.settings import Settings
from ratchet.systems.registry import ORDER


def control(session: Session, now: float, _settings: Settings) -> Iterator[GaugeMetricFamily]:
    yield from _workers(session, now)
    yield from _troubled(session, now)
    yield from _dead(session)
    waiting = session.execute(
        select(func.count(), func.min(OutboxRow.created_at)).where(OutboxRow.relayed_at.is_(None))
    ).one()
    yield single("ratchet_outbox_waiting", "Events in the ledger that Redis has not got yet.", waiting[0])
    yield single(
        "ratchet_outbox_oldest_seconds",
        "Age of the oldest of them, 0 if none.",
        max(0.0, now - waiting[1]) if waiting[1] is not None else 0.0,
    )


def _workers(session: Session, now: float) -> Iterator[GaugeMetricFamily]:
    """A worker that said that it stopped, or failed, is not missing."""
    rows = session.scalars(select(WorkerRow).where(workers.expected(), WorkerRow.seen_at > now - FORGOTTEN_S)).all()
    yield gauge(
        "ratchet_worker_unseen_seconds",
        "Time since a worker that should be there was last seen.",
        ("worker", "system", "host"),
        (((w.name, w.system, w.host), max(0.0, now - w.seen_at)) for w in rows),
    )
    present = [w.system for w in rows if now - w.seen_at < PRESENT_S]
    yield gauge(
        "ratchet_workers",
        "Workers that are there, by system.",
        ("system",),
        (((system,), float(present.count(system))) for system in dict.fromkeys((*ORDER, *present))),
    )


def _troubled(session: Session, now: float) -> Iterator[GaugeMetricFamily]:
    """Workers that fail or wait, and what is damaged: series that are there as long as the trouble is."""
    label = ("worker", "system", "host")
    yield gauge(
        "ratchet_worker_failures",
        "Starts in a row that have failed, of a worker that fails at its start.",
        label,
        (((w.name, w.system, w.host), float(w.failures)) for w in workers.failing(session, now)),
    )
    yield gauge(
        "ratchet_worker_waits",
        "1 for a worker that waits for something which is no fault of its subjects.",
        label,
        (((w.name, w.system, w.host), 1.0) for w in workers.waiting(session, now)),
    )
    found = damages.found_since(session, now - damages.TOLD_S)
    yield single(
        "ratchet_artifacts_damaged",
        "Artifacts found damaged within a day and not mended.",
        float(len({damage.artifact for damage in found})),
    )


def _dead(session: Session) -> Iterator[GaugeMetricFamily]:
    query = (
        select(DeadLetterRow.system, func.count())
        .where(DeadLetterRow.resolved_at.is_(None))
        .group_by(DeadLetterRow.system)
    )
    counts = dict(session.execute(query).all())
    yield gauge(
        "ratchet_dead_letters",
        "Subjects and events that were given up and wait for a human.",
        ("system",),
        (((system,), float(counts.get(system, 0))) for system in dict.fromkeys((*ORDER, *counts))),
    )

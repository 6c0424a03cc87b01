"""Metrics of unfinished work in the ledger: waiting subjects, dead letters, missing workers and unsent events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.ledger import health
from ratchet.ledger.health import LISTED_S, PRESENT_S
from ratchet.ledger.pending import QUERIES, oldest
from ratchet.ledger.suites import unanswered_requests
from ratchet.ledger.tables import ClaimRow, DeadLetterRow, OutboxRow, WorkerRow
from ratchet.metrics.families import gauge, single
from ratchet.settings import Settings
from ratchet.systems import registry


def control(session: Session, now: float, _settings: Settings) -> Iterator[GaugeMetricFamily]:
    yield from _workers(session, now)
    yield from _problems(session, now)
    yield from _dead(session)
    waiting = session.execute(
        select(func.count(), func.min(OutboxRow.created_at)).where(OutboxRow.relayed_at.is_(None))
    ).one()
    yield single("ratchet_outbox_waiting", "Events in the ledger that have not reached Redis yet.", waiting[0])
    yield single(
        "ratchet_outbox_oldest_seconds",
        "Age of the oldest event that has not been relayed, 0 if none.",
        _age(waiting[1], now),
    )


def _workers(session: Session, now: float) -> Iterator[GaugeMetricFamily]:
    """Seconds since workers were last seen. A worker that reported a stop or a failure is not missing."""
    rows = session.scalars(select(WorkerRow).where(health.is_expected(), WorkerRow.seen_at > now - LISTED_S)).all()
    yield gauge(
        "ratchet_worker_unseen_seconds",
        "Time since a worker that was not stopped was last seen.",
        ("worker", "system", "host"),
        (((w.name, w.system, w.host), max(0.0, now - w.seen_at)) for w in rows),
    )
    names = [system.name for system in registry.known(session)]
    present = [w.system for w in rows if now - w.seen_at < PRESENT_S]
    yield gauge(
        "ratchet_workers",
        "Running workers by system.",
        ("system",),
        (((system,), float(present.count(system))) for system in dict.fromkeys((*names, *present))),
    )


def _problems(session: Session, now: float) -> Iterator[GaugeMetricFamily]:
    """Failing and waiting workers, and damaged artifacts. A series exists only while its problem does."""
    label = ("worker", "system", "host")
    yield gauge(
        "ratchet_worker_failures",
        "Failed starts in a row of a worker.",
        label,
        (((w.name, w.system, w.host), float(w.failures)) for w in health.failing_workers(session, now)),
    )
    yield gauge(
        "ratchet_worker_waits",
        "1 for a worker that waits for something all its subjects depend on.",
        label,
        (((w.name, w.system, w.host), 1.0) for w in health.waiting_workers(session, now)),
    )
    found = health.damages_since(session, now - health.DAMAGE_SHOWN_S)
    yield single(
        "ratchet_artifacts_damaged",
        "Artifacts found damaged within a day and not repaired.",
        float(len({damage.artifact for damage in found})),
    )


def _dead(session: Session) -> Iterator[GaugeMetricFamily]:
    query = (
        select(DeadLetterRow.system, func.count())
        .where(DeadLetterRow.resolved_at.is_(None))
        .group_by(DeadLetterRow.system)
    )
    counts = dict(session.execute(query).all())
    names = [system.name for system in registry.known(session)]
    yield gauge(
        "ratchet_dead_letters",
        "Open dead letters: subjects and events that need an operator.",
        ("system",),
        (((system,), float(counts.get(system, 0))) for system in dict.fromkeys((*names, *counts))),
    )


@dataclass(frozen=True)
class Waiting:
    """Subjects without a system's verdict. ``since`` is when the oldest began to wait (epoch seconds), None without."""

    system: str
    subjects: str
    count: int
    since: float | None


def find_waiting(session: Session) -> list[Waiting]:
    """What waits for each system, from queries over all subjects."""
    found = []
    for system in registry.known(session):
        if system.pending not in QUERIES:
            continue  # generation depends only on the depth of the queue, which has its own gauges
        since, count = oldest(session, QUERIES[system.pending](system.name))
        found.append(Waiting(system.name, str(system.pending), count, since))
    return found


def pending(waiting: Sequence[Waiting], now: float) -> Iterator[GaugeMetricFamily]:
    """Age and count of the subjects that wait for each system."""
    # Alerts select by ``subjects``, so that they also apply to systems that are added later.
    labels = ("system", "subjects")
    ages = (((each.system, each.subjects), _age(each.since, now)) for each in waiting)
    counts = (((each.system, each.subjects), float(each.count)) for each in waiting)
    text = "Age of the oldest subject that waits for the system, 0 if none."
    yield gauge("ratchet_pending_oldest_seconds", text, labels, ages)
    yield gauge("ratchet_pending", "Subjects that wait for the system.", labels, counts)


def claims(session: Session, now: float, _settings: Settings) -> Iterator[GaugeMetricFamily]:
    """Claims by system, and open evaluation requests."""
    yield from _claims(session, now)
    asked_at = session.scalar(select(func.min(unanswered_requests().subquery().c.created_at)))
    yield gauge(
        "ratchet_request_oldest_seconds",
        "Age of the oldest open evaluation request, 0 if none.",
        (),
        [((), _age(asked_at, now))],
    )


def _age(since: float | None, now: float) -> float:
    return max(0.0, now - since) if since is not None else 0.0


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
        "Failures and process deaths of the subjects that a worker holds.",
        label,
        (((r[0],), float(r[3])) for r in rows),
    )

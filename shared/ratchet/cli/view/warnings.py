"""What needs the user's attention now, a sentence each with its way out."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.cli.machine import disk_shortage
from ratchet.cli.output import shortened
from ratchet.ledger import health
from ratchet.ledger.tables import DamageRow, ServingRow
from ratchet.settings import Settings

ROOM = 200
"""Characters of an error that a warning quotes."""


def read_warnings(session: Session, settings: Settings, now: float) -> tuple[str, ...]:
    """The most urgent first."""
    return tuple(_warnings(session, settings, now))


def _warnings(session: Session, settings: Settings, now: float) -> Iterator[str]:
    if (shortage := disk_shortage(settings.home)) is not None:
        yield shortage
    for worker in health.failing_workers(session, now):
        last = shortened(health.last_line(worker.error), ROOM)
        yield f"{worker.name} fails when it is started: {last}: `ratchet doctor` shows the traceback"
    fallback = session.scalar(select(ServingRow.fallback_reason).limit(1))
    if fallback is not None:
        yield fallback
    for worker in health.waiting_workers(session, now):
        yield f"{worker.name} waits: {shortened(worker.error or '', ROOM)}"
    yield from _damages(session, now)


def _damages(session: Session, now: float) -> Iterator[str]:
    """One an artifact, however many subjects wait for it; of those, what befell the first is told."""
    by_artifact: dict[str, list[DamageRow]] = {}
    for damage in health.damages_since(session, now - health.TOLD_S):
        by_artifact.setdefault(damage.artifact, []).append(damage)
    for found in by_artifact.values():
        subjects = len({(damage.subject_kind, damage.subject_id) for damage in found})
        several = f" {subjects} subjects are concerned." if subjects > 1 else ""
        yield f"{shortened(found[-1].error, ROOM)} {found[-1].consequence}{several}"

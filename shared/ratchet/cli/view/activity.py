"""Recent activity, the newest first: verdicts, dead letters, and events that have no verdict."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.cli.view.view_model import Activity, plain
from ratchet.ledger.tables import BatchRow, CheckpointRow, DeadLetterRow, OutboxRow, SuiteRow, VerdictRow
from ratchet.lines import first_line

SENTENCES = {
    "training.started": "started {batch}",
    "checkpoint.saved": "saved {checkpoint} at step {step}",
    "training.failed": "failed on {batch}: {reason}",
    "queue.low": "the queue is low: {depth:,} examples, {low_water:,} wanted",
    "checkpoint.deployed": "{checkpoint} is live",
    "deployment.rolled_back": "rolled back from {checkpoint} to {to_checkpoint}: {reason}",
}
"""Events that are listed beside the verdicts, as templates of their fields."""


@dataclass(frozen=True)
class Mark:
    """How far the ledger has been read: the last row of each of the three tables."""

    verdict: int = 0
    event: int = 0
    letter: int = 0


def mark(session: Session) -> Mark:
    """The current end of the three tables."""
    return Mark(
        session.scalar(select(func.max(VerdictRow.id))) or 0,
        session.scalar(select(func.max(OutboxRow.seq))) or 0,
        session.scalar(select(func.max(DeadLetterRow.id))) or 0,
    )


def recent(session: Session, limit: int, after: Mark | None = None) -> tuple[Activity, ...]:
    """The newest activities after that mark, the newest first."""
    seen = after or Mark()
    verdicts = session.scalars(
        select(VerdictRow).where(VerdictRow.id > seen.verdict).order_by(VerdictRow.id.desc()).limit(limit)
    ).all()
    events = session.scalars(
        select(OutboxRow)
        .where(OutboxRow.seq > seen.event, OutboxRow.name.in_(SENTENCES))
        .order_by(OutboxRow.seq.desc())
        .limit(limit)
    ).all()
    letters = session.scalars(
        select(DeadLetterRow).where(DeadLetterRow.id > seen.letter).order_by(DeadLetterRow.id.desc()).limit(limit)
    ).all()
    names = Names(session)
    activities = [
        *(_letter(letter, names) for letter in letters),
        *(_event(event, names) for event in events),
        *(_verdict(verdict, names) for verdict in verdicts),
    ]
    return tuple(sorted(activities, key=lambda activity: activity.at, reverse=True)[:limit])


class Names:
    """Display names of ids: ``#7`` for a checkpoint, the origin and a short id for a batch."""

    def __init__(self, session: Session):
        self._session = session
        self._known: dict[tuple[str, str], str] = {}

    def of(self, kind: str, subject_id: str) -> str:
        known = self._known.get((kind, subject_id))
        if known is None:
            known = self._known[kind, subject_id] = self._look_up(kind, subject_id)
        return known

    def _look_up(self, kind: str, subject_id: str) -> str:
        if kind == "checkpoint":
            checkpoint = self._session.get(CheckpointRow, subject_id)
            return f"#{checkpoint.ordinal}" if checkpoint else f"checkpoint {subject_id[:8]}"
        if kind == "batch":
            batch = self._session.get(BatchRow, subject_id)
            return f"{batch.origin} batch {subject_id[:6]}" if batch else f"batch {subject_id[:6]}"
        if kind == "request":
            checkpoint_id, suite_id = subject_id.split("/")[:2]
            suite = self._session.get(SuiteRow, suite_id)
            return f"{self.of('checkpoint', checkpoint_id)} on the {suite.pool if suite else suite_id[:8]} suite"
        if kind in ("end", "ask"):
            return plain(f"the task {subject_id.rpartition('/')[0]}")
        if kind in ("coverage", "mined"):
            return f"{kind} of {self.of('batch' if kind == 'coverage' else 'checkpoint', subject_id)}"
        return plain(f"{kind} {subject_id[:40]}")


def _verdict(verdict: VerdictRow, names: Names) -> Activity:
    subject = names.of(verdict.subject_kind, verdict.subject_id)
    reason = plain(verdict.reason)
    text = f"{subject} {verdict.outcome}: {reason}" if reason else f"{subject} {verdict.outcome}"
    return Activity(verdict.created_at, verdict.system, text, verdict.outcome)


def _letter(letter: DeadLetterRow, names: Names) -> Activity:
    subject = names.of(letter.subject_kind, letter.subject_id)
    error = first_line(letter.error) or "no error was recorded"
    text = f"gave up {subject}: {error:.200} (`ratchet dead show {letter.id}`)"
    return Activity(letter.created_at, letter.system, text, "dead")


def _event(row: OutboxRow, names: Names) -> Activity:
    fields: dict[str, Any] = json.loads(row.body)
    for key in ("batch_id", "checkpoint_id", "to_checkpoint_id"):
        if fields.get(key):
            kind = "batch" if key == "batch_id" else "checkpoint"
            fields[key.removesuffix("_id")] = names.of(kind, str(fields[key]))
    who = "deployment" if "deploy" in row.name else "training"
    return Activity(row.created_at, who, plain(SENTENCES[row.name].format_map(fields)), row.name)

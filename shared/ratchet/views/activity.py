"""Recent activity, the newest first: verdicts, dead letters, and events that have no verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import DeadLetterRow, OutboxRow, VerdictRow
from ratchet.lines import first_line
from ratchet.views.event_words import Names, describe
from ratchet.views.view_model import Activity, plain

LISTED = (
    "training.started",
    "checkpoint.saved",
    "training.failed",
    "queue.low",
    "checkpoint.deployed",
    "deployment.rolled_back",
)
"""Events that are listed beside the verdicts; the others announce one."""

Row = VerdictRow | OutboxRow | DeadLetterRow


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
        .where(OutboxRow.seq > seen.event, OutboxRow.name.in_(LISTED))
        .order_by(OutboxRow.seq.desc())
        .limit(limit)
    ).all()
    letters = session.scalars(
        select(DeadLetterRow).where(DeadLetterRow.id > seen.letter).order_by(DeadLetterRow.id.desc()).limit(limit)
    ).all()
    # Only the newest of all three are put into words, which takes queries.
    found: list[Row] = [*letters, *events, *verdicts]
    rows = sorted(found, key=lambda row: row.created_at, reverse=True)[:limit]
    names = Names(session)
    _expect(names, rows)
    described = {each.row.seq: each for each in describe((row for row in rows if isinstance(row, OutboxRow)), names)}

    def activity(row: Row) -> Activity:
        if isinstance(row, OutboxRow):
            return Activity(row.created_at, described[row.seq].who, described[row.seq].text, row.name)
        return _verdict(row, names) if isinstance(row, VerdictRow) else _letter(row, names)

    return tuple(activity(row) for row in rows)


def _expect(names: Names, rows: Iterable[Row]) -> None:
    """Look up the subjects of verdicts and letters at once."""
    subjects = [(row.subject_kind, row.subject_id) for row in rows if not isinstance(row, OutboxRow)]
    for kind in ("checkpoint", "batch"):
        names.expect(kind, (subject_id for of_kind, subject_id in subjects if of_kind == kind))


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

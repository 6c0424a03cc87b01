"""The outbox as a journal: events newest first, by name, by what they are about, or by a text, page after page.

A page reads a stretch of the outbox of limited length, so that a rare event costs no more than a frequent one; where
the stretch ends before the page is full, the reader goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from ratchet.errors import PreconditionFailed
from ratchet.events import CATALOGUE
from ratchet.ledger.retention import removed_events
from ratchet.ledger.tables import BatchRow, OutboxRow
from ratchet.settings import Settings
from ratchet.views.checkpoint_names import NAMES, find_checkpoint
from ratchet.views.event_words import WORDS, DescribedEvent, Names, describe

PAGE = 50
STRETCH = 40_000
"""Events that are searched for one page where there is a filter."""

MOST_TEXT = 200


@dataclass(frozen=True)
class JournalFilter:
    """Which events: of a name, about a checkpoint (``#7``), a batch (its id) or a system, with a text in them.

    ``before`` is a sequence number of the outbox; only earlier events are listed.
    """

    name: str = ""
    about: str = ""
    text: str = ""
    before: int | None = None

    @property
    def is_all(self) -> bool:
        return not (self.name or self.about or self.text)


@dataclass(frozen=True)
class JournalPage:
    """Events, the newest first. ``older`` is where the next page begins, None at the end; ``searched_to`` is when the
    oldest event was written that was looked at, where the page is not full and there are older ones."""

    events: Sequence[DescribedEvent]
    older: int | None = None
    searched_to: float | None = None


def read_journal(session: Session, wanted: JournalFilter, limit: int = PAGE, stretch: int = STRETCH) -> JournalPage:
    """One page. Raises PreconditionFailed for an event or a subject that is not known."""
    newest = session.scalar(select(func.max(OutboxRow.seq)))
    if newest is None:
        return JournalPage(())
    last = min(wanted.before - 1 if wanted.before is not None else newest, newest)
    first = 0 if wanted.is_all else max(0, last - stretch + 1)
    query = select(OutboxRow).where(OutboxRow.seq <= last, OutboxRow.seq >= first, *_conditions(session, wanted))
    rows = session.scalars(query.order_by(OutboxRow.seq.desc()).limit(limit + 1)).all()
    described = describe(rows[:limit], Names(session))
    if len(rows) > limit:
        return JournalPage(described, rows[limit - 1].seq)
    if first <= 1:
        return JournalPage(described)
    at = session.scalar(select(OutboxRow.created_at).where(OutboxRow.seq >= first).order_by(OutboxRow.seq).limit(1))
    return JournalPage(described, first, at)


def why_missing(session: Session, settings: Settings) -> str:
    """A sentence on events that the journal no longer has; empty where none was ever removed."""
    count = removed_events(session)
    if not count:
        return ""
    return (
        f"{count:,} events were removed by retention after {settings.retention.events_days} days; those that a "
        "decision rests on stay."
    )


def find_event(session: Session, name: str) -> OutboxRow | None:
    """The event of that id, or the only one whose id begins with it (at least 8 digits)."""
    row = session.scalar(select(OutboxRow).where(OutboxRow.event_id == name))
    if row is not None or len(name) < 8 or not name.isalnum():
        return row
    after = f"{name}g"  # ids are hexadecimal, and letters come after digits in the order of any database
    query = select(OutboxRow).where(OutboxRow.event_id >= name, OutboxRow.event_id < after).limit(2)
    found = session.scalars(query).all()
    return found[0] if len(found) == 1 else None


def first_after(session: Session, at: float) -> int:
    """The number of the first event written at that time or later; one more than the last where there is none.

    Times have no index. Events are numbered in the order of their times, so that some twenty rows are read.
    """
    low, high = 0, int(session.scalar(select(func.max(OutboxRow.seq))) or 0) + 1
    while low < high:
        middle = (low + high) // 2
        query = select(OutboxRow.seq, OutboxRow.created_at).where(OutboxRow.seq >= middle)
        found = session.execute(query.order_by(OutboxRow.seq).limit(1)).first()
        if found is None or found.created_at >= at:
            high = middle
        else:
            low = found.seq + 1
    return low


def _conditions(session: Session, wanted: JournalFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.name:
        if wanted.name not in CATALOGUE:
            raise PreconditionFailed(f"there is no event {wanted.name!r}; there are: {', '.join(CATALOGUE)}.")
        found.append(OutboxRow.name == wanted.name)
    if wanted.about:
        found.append(_about(session, wanted.about.strip()[:MOST_TEXT]))
    for word in wanted.text[:MOST_TEXT].split():
        found.append(or_(OutboxRow.body.icontains(word, autoescape=True), OutboxRow.event_id == word))
    return found


def _about(session: Session, subject: str) -> ColumnElement[bool]:
    """Events that name a checkpoint or a batch, or that a system announces."""
    names = [name for name, (who, _) in WORDS.items() if who == subject]
    if names:
        return OutboxRow.name.in_(names)
    if subject.startswith("#") or subject.isdecimal() or subject in NAMES:
        return OutboxRow.body.contains(f'"{find_checkpoint(session, subject.removeprefix("#")).id}"', autoescape=True)
    whole = select(BatchRow.id).where(BatchRow.id.startswith(subject, autoescape=True)).limit(2)
    batches = session.scalars(whole).all()
    if len(batches) == 1 and len(subject) >= 4:
        return OutboxRow.body.contains(f'"{batches[0]}"', autoescape=True)
    if subject.startswith("c0"):
        return OutboxRow.body.contains(f'"{find_checkpoint(session, subject).id}"', autoescape=True)
    systems = ", ".join(dict.fromkeys(who for who, _ in WORDS.values()))
    raise PreconditionFailed(
        f"nothing is known by {subject!r}: write a checkpoint (#7), the id of a batch, or a system ({systems})."
    )

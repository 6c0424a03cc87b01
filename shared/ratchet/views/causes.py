"""What led to an event, and what it led to: the outbox as a tree, read along its causes.

An event names the one whose handling led to it. In a loop the chain behind an event grows with the run, so both
directions are limited.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import literal, select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import OutboxRow
from ratchet.views.event_words import DescribedEvent, Names, describe

NEAREST = 40
"""Causes that are followed back."""


@dataclass(frozen=True)
class Effect:
    """An event with those that it led to, the earliest first. ``more``: others of its effects were left out."""

    event: OutboxRow
    effects: tuple[Effect, ...] = ()
    more: bool = False


@dataclass(frozen=True)
class DescribedEffect:
    """An event in words with its effects in words."""

    event: DescribedEvent
    effects: tuple[DescribedEffect, ...]
    more: bool


def chain(session: Session, event_id: str, limit: int = NEAREST) -> list[OutboxRow]:
    """The event and the causes before it, from the root on: the nearest ``limit`` of them, the event itself the last.

    The first one has a cause of its own where the chain goes on. Empty for an event that is not in the outbox.
    """
    start = select(OutboxRow.event_id, OutboxRow.cause, literal(0).label("steps")).where(OutboxRow.event_id == event_id)
    walked = start.cte("walked", recursive=True)
    earlier = select(OutboxRow.event_id, OutboxRow.cause, walked.c.steps + 1)
    earlier = earlier.where(OutboxRow.event_id == walked.c.cause, walked.c.steps < limit - 1)
    walked = walked.union_all(earlier)
    query = select(OutboxRow).join(walked, walked.c.event_id == OutboxRow.event_id).order_by(walked.c.steps.desc())
    return list(session.scalars(query))


def effects(session: Session, event_id: str, limit: int = 100) -> tuple[Effect, ...]:
    """What the event led to, directly and through others: at most ``limit`` events, the nearest ones first."""
    by_cause: dict[str, list[OutboxRow]] = {}
    wanted, left, seen = [event_id], limit, {event_id}
    while wanted and left > 0:
        query = select(OutboxRow).where(OutboxRow.cause.in_(wanted)).order_by(OutboxRow.seq).limit(left)
        found = [row for row in session.scalars(query) if row.event_id not in seen]
        for row in found:
            by_cause.setdefault(str(row.cause), []).append(row)
        wanted, left = [row.event_id for row in found], left - len(found)
        seen.update(wanted)
    cut = _with_effects(session, wanted) if wanted else set()

    def tree(cause: str) -> tuple[Effect, ...]:
        return tuple(Effect(row, tree(row.event_id), more=row.event_id in cut) for row in by_cause.get(cause, ()))

    return tree(event_id)


def _with_effects(session: Session, event_ids: Sequence[str]) -> set[str]:
    """Those of the events that led to others."""
    query = select(OutboxRow.cause).where(OutboxRow.cause.in_(event_ids)).distinct()
    return {str(cause) for cause in session.scalars(query)}


def in_words(session: Session, causes: Iterable[OutboxRow], found: Iterable[Effect]) -> dict[str, DescribedEvent]:
    """The events of a chain and of effects in words, by their ids."""
    rows = [*causes, *events_of(found)]
    return {event.row.event_id: event for event in describe(rows, Names(session))}


def events_of(found: Iterable[Effect]) -> Iterator[OutboxRow]:
    """All events of these trees."""
    for effect in found:
        yield effect.event
        yield from events_of(effect.effects)


def describe_effects(found: Iterable[Effect], described: Mapping[str, DescribedEvent]) -> tuple[DescribedEffect, ...]:
    """The same trees in words."""
    return tuple(
        DescribedEffect(described[each.event.event_id], describe_effects(each.effects, described), each.more)
        for each in found
    )

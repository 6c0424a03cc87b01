"""The relay: takes events from the ledger's outbox to their streams, in order, at least once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from sqlalchemy import select, update

from ratchet.bus.connection import connect, redis_url
from ratchet.bus.streams import Letter, Streams
from ratchet.events import Event
from ratchet.ledger import Ledger
from ratchet.ledger.tables import OutboxRow
from ratchet.settings import Settings

BATCH = 500


class Relay:
    """Publishes what was committed and marks it. Any number of relays may do the same work at once."""

    def __init__(self, ledger: Ledger, streams: Streams):
        self._ledger, self._streams = ledger, streams

    def __call__(self, events: Sequence[Event]) -> None:
        """Relay a transaction's own events, right after its commit. Raises TransientError."""
        self._relay([Letter.of(event) for event in events])

    def leftovers(self) -> int:
        """Relay what a crash or an outage left behind; returns how many. Raises TransientError."""
        relayed = 0
        while letters := self._waiting():
            self._relay(letters)
            relayed += len(letters)
        return relayed

    def _waiting(self) -> list[Letter]:
        query = select(OutboxRow).where(OutboxRow.relayed_at.is_(None)).order_by(OutboxRow.seq).limit(BATCH)
        with self._ledger.read() as session:
            return [Letter(row.event_id, row.name, row.body) for row in session.scalars(query)]

    def _relay(self, letters: list[Letter]) -> None:
        self._streams.publish(letters)
        ids = [letter.event_id for letter in letters]
        with self._ledger.write() as tx:
            tx.session.execute(
                update(OutboxRow)
                .where(OutboxRow.event_id.in_(ids), OutboxRow.relayed_at.is_(None))
                .values(relayed_at=tx.now)
            )


def relaying_ledger(settings: Settings) -> Ledger:
    """The configured ledger, whose transactions relay their own events after the commit.

    It opens without Redis: events then wait in the outbox for whoever relays next.
    """
    ledger = Ledger(settings.ledger_url)

    @cache
    def relay() -> Relay:
        return Relay(ledger, Streams(connect(redis_url(settings)), settings.redis.stream_length))

    ledger.after_commit = lambda events: relay()(events)
    return ledger

"""Events on Redis Streams, with one stream per event name and one consumer group per system, and the outbox relay.

An event only wakes a lane. It is acknowledged when it is read, streams are trimmed, and nothing is redelivered: a
system's sweep finds the subjects of lost events. The ledger's outbox is the durable feed. It does not know what the
lanes do.

Streams are used instead of a Celery topic exchange because they are faster (benchmarks/events/RESULTS.md): one script
call publishes an event, and its reader wakes a lane without the overhead of a task message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError
from sqlalchemy import select, update

from ratchet.bus.connection import connect, redis_errors, redis_url
from ratchet.events import Event, encode
from ratchet.ledger import Ledger
from ratchet.ledger.tables import OutboxRow
from ratchet.settings import Settings

PREFIX = "ratchet:events:"
SEEN = "ratchet:event:"
REMEMBER_S = 3600
BLOCK_MS = 1000
LENGTH = 10_000
"""The entries that a stream keeps. A worker that has missed more is woken by its sweep."""

BATCH = 500
"""Events that are relayed together after an outage."""

PUBLISH = Path(__file__).with_name("publish.lua").read_text()


@dataclass(frozen=True)
class EventRecord:
    """An event as it is stored in the outbox and sent."""

    event_id: str
    name: str
    body: str

    @classmethod
    def of(cls, event: Event) -> EventRecord:
        return cls(event.id, event.name, encode(event))


@dataclass(frozen=True)
class StreamEntry:
    """An entry that was read: the name of its event, its id in the stream, its undecoded body."""

    name: str
    id: str
    body: bytes


class Streams:
    """Publishes and reads events. All methods raise TransientError while Redis is unavailable."""

    def __init__(self, client: Redis, length: int = LENGTH):
        self._client, self._length = client, length
        self._publish = client.register_script(PUBLISH)

    def publish(self, records: Iterable[EventRecord]) -> int:
        """Add events to their streams; returns how many were new. An event that is published again within an hour is
        dropped."""
        with redis_errors():
            return sum(
                self._publish(
                    keys=[PREFIX + record.name, SEEN + record.event_id],
                    args=[record.event_id, record.body, self._length, REMEMBER_S],
                )
                for record in records
            )

    def open(self, group: str, names: Iterable[str]) -> None:
        """Create the group on each stream, at its beginning; a group that exists keeps its position."""
        with redis_errors():
            for name in names:
                with _allowing("BUSYGROUP"):
                    self._client.xgroup_create(PREFIX + name, group, id="0", mkstream=True)

    def read(
        self, group: str, reader: str, names: list[str], count: int, block_ms: int = BLOCK_MS
    ) -> list[StreamEntry]:
        """The next entries of these streams for the group, at most ``count`` of each; waits ``block_ms`` for one.

        Groups that a flush of Redis has deleted are created again, and nothing is returned this time.
        """
        with redis_errors():
            with _allowing("NOGROUP"):
                streams: dict[Any, Any] = {PREFIX + name: ">" for name in names}
                answer: Any = self._client.xreadgroup(group, reader, streams, count=count, block=block_ms, noack=True)
                return [_entry(stream, entry_id, fields) for stream, found in answer for entry_id, fields in found]
            self.open(group, names)
            return []


@contextmanager
def _allowing(code: str) -> Iterator[None]:
    """Ignore a Redis error with this code."""
    try:
        yield
    except ResponseError as error:
        if not str(error).startswith(code):
            raise


def _entry(stream: bytes, entry_id: bytes, fields: dict[bytes, bytes]) -> StreamEntry:
    return StreamEntry(stream.decode().removeprefix(PREFIX), entry_id.decode(), fields.get(b"body", b""))


class Relay:
    """Publishes committed events and marks them as relayed. Several relays may run at once."""

    def __init__(self, ledger: Ledger, streams: Streams):
        self._ledger, self._streams = ledger, streams

    def __call__(self, events: Sequence[Event]) -> None:
        """Relay a transaction's own events, right after its commit. Raises TransientError."""
        self._relay([EventRecord.of(event) for event in events])

    def relay_leftovers(self) -> int:
        """Relay the events that a crash or an outage has left in the outbox; returns their number. Raises
        TransientError."""
        relayed = 0
        while records := self._unrelayed():
            self._relay(records)
            relayed += len(records)
        return relayed

    def _unrelayed(self) -> list[EventRecord]:
        query = select(OutboxRow).where(OutboxRow.relayed_at.is_(None)).order_by(OutboxRow.seq).limit(BATCH)
        with self._ledger.read() as session:
            return [EventRecord(row.event_id, row.name, row.body) for row in session.scalars(query)]

    def _relay(self, records: list[EventRecord]) -> None:
        self._streams.publish(records)
        ids = [record.event_id for record in records]
        with self._ledger.write() as tx:
            tx.session.execute(
                update(OutboxRow)
                .where(OutboxRow.event_id.in_(ids), OutboxRow.relayed_at.is_(None))
                .values(relayed_at=tx.now)
            )


def relaying_ledger(settings: Settings) -> Ledger:
    """The configured ledger, whose transactions relay their own events after the commit.

    It works without Redis; events then wait in the outbox for the next relay.
    """
    ledger = Ledger(settings.ledger_url)

    @cache
    def relay() -> Relay:
        return Relay(ledger, Streams(connect(redis_url(settings))))

    ledger.after_commit = lambda events: relay()(events)
    return ledger

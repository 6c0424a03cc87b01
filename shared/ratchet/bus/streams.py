"""Events on Redis Streams: one stream an event name, one consumer group a system.

They are hints. What is read is acknowledged on reading, streams are cut to a length, and nothing is redelivered: the
sweep of a system finds what a lost event would have told it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError

from ratchet.bus.connection import redis_trouble
from ratchet.events import Event, encode

PREFIX = "ratchet:events:"
SEEN = "ratchet:event:"
REMEMBER_S = 3600
BLOCK_MS = 1000
PUBLISH = Path(__file__).with_name("publish.lua").read_text()


@dataclass(frozen=True)
class Letter:
    """An event as it lies in the outbox and on the wire."""

    event_id: str
    name: str
    body: str

    @classmethod
    def of(cls, event: Event) -> Letter:
        return cls(event.id, event.name, encode(event))


@dataclass(frozen=True)
class Entry:
    """One entry that was read: its event's name by the stream, its id in the stream, its undecoded body."""

    name: str
    id: str
    body: bytes


class Streams:
    """Publishes and reads. All methods raise TransientError while Redis is away."""

    def __init__(self, client: Redis, length: int):
        self._client, self._length = client, length
        self._publish = client.register_script(PUBLISH)

    def publish(self, letters: Iterable[Letter]) -> int:
        """Add letters to their streams; returns how many were new. One published again within an hour is dropped."""
        with redis_trouble():
            return sum(
                self._publish(
                    keys=[PREFIX + letter.name, SEEN + letter.event_id],
                    args=[letter.event_id, letter.body, self._length, REMEMBER_S],
                )
                for letter in letters
            )

    def open(self, group: str, names: Iterable[str]) -> None:
        """Make the group on each stream, at its beginning; a group that exists stays where it is."""
        with redis_trouble():
            for name in names:
                with _allowing("BUSYGROUP"):
                    self._client.xgroup_create(PREFIX + name, group, id="0", mkstream=True)

    def read(self, group: str, reader: str, names: list[str], count: int, block_ms: int = BLOCK_MS) -> list[Entry]:
        """The next entries of these streams for the group, at most ``count`` of each; waits ``block_ms`` for one.

        Groups that a flush has taken are made again, and nothing is returned this time.
        """
        with redis_trouble():
            with _allowing("NOGROUP"):
                streams: dict[Any, Any] = {PREFIX + name: ">" for name in names}
                answer: Any = self._client.xreadgroup(group, reader, streams, count=count, block=block_ms, noack=True)
                return [_entry(stream, entry_id, fields) for stream, found in answer for entry_id, fields in found]
            self.open(group, names)
            return []


@contextmanager
def _allowing(code: str) -> Iterator[None]:
    """Pass over an error answer of Redis that starts with this code."""
    try:
        yield
    except ResponseError as error:
        if not str(error).startswith(code):
            raise


def _entry(stream: bytes, entry_id: bytes, fields: dict[bytes, bytes]) -> Entry:
    return Entry(stream.decode().removeprefix(PREFIX), entry_id.decode(), fields.get(b"body", b""))

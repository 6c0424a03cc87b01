from __future__ import annotations

import threading
from pathlib import Path

import pytest
from ratchet.bus.connection import connect
from ratchet.bus.embedded_redis import EmbeddedRedis
from ratchet.bus.streams import PREFIX, Relay, Streams, relaying_ledger
from ratchet.errors import TransientError
from ratchet.events import decode
from ratchet.events.catalogue import BatchQueued
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import OutboxRow
from ratchet.settings import Settings
from sqlalchemy import select

from tests.support.redis import redis_server

__all__ = ["redis_server"]


def emit(ledger: Ledger, *batch_ids: str) -> None:
    with ledger.write() as tx:
        for batch_id in batch_ids:
            tx.emit(BatchQueued(batch_id=batch_id))


def unrelayed(ledger: Ledger) -> int:
    with ledger.read() as session:
        return len(session.scalars(select(OutboxRow).where(OutboxRow.relayed_at.is_(None))).all())


def published(server: EmbeddedRedis) -> list[str]:
    entries = connect(server.url).xrange(PREFIX + BatchQueued.name)
    return [decode(fields[b"body"]).batch_id for _, fields in entries]


def relay_to(server: EmbeddedRedis, ledger: Ledger) -> Relay:
    return Relay(ledger, Streams(connect(server.url), 1000))


def test_a_writer_relays_its_own_events_at_once(ledger: Ledger, redis_server: EmbeddedRedis) -> None:
    ledger.after_commit = relay_to(redis_server, ledger)
    emit(ledger, "a", "b")
    assert published(redis_server) == ["a", "b"]
    assert unrelayed(ledger) == 0


def test_leftover_events_are_relayed_once_and_in_order(ledger: Ledger, redis_server: EmbeddedRedis) -> None:
    for batch_id in "abc":
        emit(ledger, batch_id)
    relay = relay_to(redis_server, ledger)
    assert (relay.relay_leftovers(), relay.relay_leftovers()) == (3, 0)
    assert published(redis_server) == ["a", "b", "c"]
    assert unrelayed(ledger) == 0


def test_concurrent_relays_do_no_harm(ledger: Ledger, redis_server: EmbeddedRedis) -> None:
    emit(ledger, *(str(number) for number in range(30)))
    threads = [threading.Thread(target=relay_to(redis_server, ledger).relay_leftovers) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(published(redis_server), key=int) == [str(number) for number in range(30)]
    assert unrelayed(ledger) == 0


def test_without_redis_events_wait_in_the_outbox(ledger: Ledger, redis_server: EmbeddedRedis) -> None:
    relay = relay_to(redis_server, ledger)
    ledger.after_commit = relay
    redis_server.kill()
    emit(ledger, "a")
    assert unrelayed(ledger) == 1
    with pytest.raises(TransientError):
        relay.relay_leftovers()
    redis_server.start()
    assert relay.relay_leftovers() == 1
    assert published(redis_server) == ["a"]


def test_a_ledger_opens_without_redis(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    ledger = relaying_ledger(settings)
    migrate(ledger)
    emit(ledger, "a")
    assert unrelayed(ledger) == 1
    with EmbeddedRedis.below(settings) as server:
        emit(ledger, "b")
        assert published(server) == ["b"]
    assert unrelayed(ledger) == 1
    ledger.close()

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from ratchet.bus.connection import connect
from ratchet.bus.embedded_redis import EmbeddedRedis
from ratchet.bus.streams import PREFIX, EventRecord, Streams
from ratchet.errors import TransientError
from ratchet.events import decode
from ratchet.events.catalogue import BatchQueued, BatchRejected
from redis import Redis

QUEUED, REJECTED = BatchQueued.name, BatchRejected.name


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def client(server: EmbeddedRedis) -> Redis:
    client = connect(server.url)
    client.flushall()
    return client


@pytest.fixture
def streams(client: Redis) -> Streams:
    return Streams(client, length=100)


def letters(count: int, prefix: str = "b") -> list[EventRecord]:
    return [EventRecord.of(BatchQueued(batch_id=f"{prefix}{number}")) for number in range(count)]


def read(streams: Streams, group: str = "g", *names: str, count: int = 100) -> list[str]:
    entries = streams.read(group, "reader", list(names or (QUEUED,)), count=count, block_ms=1)
    events = [decode(entry.body) for entry in entries]
    return [getattr(event, "batch_id", "") for event in events]


def test_published_events_are_read_in_order_by_every_group(streams: Streams) -> None:
    assert streams.publish(letters(3)) == 3
    for group in ("one", "two"):
        streams.open(group, [QUEUED])
        assert read(streams, group) == ["b0", "b1", "b2"]
        assert read(streams, group) == []


def test_publishing_an_event_again_changes_nothing(streams: Streams, client: Redis) -> None:
    again = letters(2)
    assert [streams.publish(again), streams.publish(again), streams.publish(again[::-1])] == [2, 0, 0]
    assert client.xlen(PREFIX + QUEUED) == 2


def test_concurrent_publishing_adds_each_event_once(streams: Streams, client: Redis) -> None:
    same = letters(20)
    threads = [threading.Thread(target=streams.publish, args=(same,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.xlen(PREFIX + QUEUED) == 20


def test_streams_are_trimmed_to_their_maximum_length(streams: Streams, client: Redis) -> None:
    streams.publish(letters(400))
    assert 100 <= client.xlen(PREFIX + QUEUED) < 300


def test_readers_of_a_group_share_its_events(streams: Streams) -> None:
    streams.publish(letters(4))
    streams.open("g", [QUEUED])
    first = streams.read("g", "first", [QUEUED], count=1, block_ms=1)
    others = streams.read("g", "second", [QUEUED], count=10, block_ms=1)
    assert (len(first), len(others)) == (1, 3)
    assert first[0].id not in {entry.id for entry in others}


def test_several_streams_are_read_at_once(streams: Streams) -> None:
    streams.publish([*letters(2), EventRecord.of(BatchRejected(batch_id="r", reason="bad"))])
    streams.open("g", [QUEUED, REJECTED])
    assert sorted(read(streams, "g", QUEUED, REJECTED)) == ["b0", "b1", "r"]


def test_events_need_no_acknowledgement(streams: Streams, client: Redis) -> None:
    streams.publish(letters(1))
    streams.open("g", [QUEUED])
    read(streams)
    assert client.xpending(PREFIX + QUEUED, "g")["pending"] == 0


def test_a_group_opened_twice_stays_where_it_is(streams: Streams) -> None:
    streams.publish(letters(1))
    streams.open("g", [QUEUED])
    read(streams)
    streams.open("g", [QUEUED])
    assert read(streams) == []


def test_concurrent_opens_create_one_group(streams: Streams, client: Redis) -> None:
    threads = [threading.Thread(target=streams.open, args=("g", [QUEUED])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(client.xinfo_groups(PREFIX + QUEUED)) == 1


def test_a_flush_loses_only_the_events_before_it(streams: Streams, client: Redis) -> None:
    streams.open("g", [QUEUED])
    streams.publish(letters(1, "lost"))
    client.flushall()
    assert read(streams) == []
    streams.publish(letters(1, "kept"))
    assert read(streams) == ["kept0"]


def test_a_redis_that_is_away_is_a_transient_error(tmp_path_factory: pytest.TempPathFactory) -> None:
    with EmbeddedRedis(tmp_path_factory.mktemp("away")) as server:
        streams = Streams(connect(server.url), length=100)
        streams.publish(letters(1))
        server.kill()
        for attempt in (
            lambda: streams.publish(letters(1)),
            lambda: streams.open("g", [QUEUED]),
            lambda: streams.read("g", "r", [QUEUED], count=1, block_ms=1),
        ):
            with pytest.raises(TransientError, match="Redis is away"):
                attempt()
        server.start()
        assert streams.publish(letters(1)) == 1

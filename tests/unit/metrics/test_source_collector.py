from __future__ import annotations

import threading

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from ratchet.bus.connection import connect
from ratchet.bus.embedded_redis import EmbeddedRedis
from ratchet.bus.streams import EventRecord, Streams
from ratchet.errors import TransientError
from ratchet.events.catalogue import BatchQueued
from ratchet.metrics.families import single
from ratchet.metrics.source_collector import StreamSource, TimeLimitedCollector

from tests.support.redis import redis_server
from tests.support.scrape import Scrape
from tests.support.workers import wait_until


class Slow:
    """Answers once it is released; first raises the given errors."""

    def __init__(self) -> None:
        self.go, self.readings = threading.Event(), 0
        self.error: Exception | None = None

    def read(self) -> list[Metric]:
        self.readings += 1
        if self.error is not None:
            raise self.error
        self.go.wait(60)
        return [single("up", "", 1.0)]

    def away(self) -> list[Metric]:
        return [single("up", "", 0.0)]


@pytest.fixture
def source() -> Slow:
    return Slow()


def up(collector: TimeLimitedCollector) -> float:
    return float(next(iter(collector.collect())).samples[0].value)


def test_a_slow_source_is_down_until_its_reading_arrives(source: Slow) -> None:
    collector = TimeLimitedCollector(source, limit_s=0.01)
    assert up(collector) == 0
    assert up(collector) == 0
    assert source.readings == 1
    source.go.set()
    collector = TimeLimitedCollector(source, limit_s=60)
    assert up(collector) == 1
    collector.close()


def test_a_failed_reading_is_exported_and_repeated_at_the_next_scrape(source: Slow) -> None:
    collector = TimeLimitedCollector(source, limit_s=60)
    source.error = TransientError("away")
    assert up(collector) == 0
    source.error = None
    source.go.set()
    assert up(collector) == 1
    collector.close()


def test_a_reading_serves_the_next_scrapes(source: Slow) -> None:
    source.go.set()
    collector = TimeLimitedCollector(source, cache_s=3600)
    assert [up(collector), up(collector)] == [1, 1]
    assert source.readings == 1
    collector.close()


def test_an_error_of_our_own_is_raised(source: Slow) -> None:
    source.error = ValueError("a mistake")
    collector = TimeLimitedCollector(source)
    with pytest.raises(ValueError, match="a mistake"):
        up(collector)
    collector.close()


@pytest.mark.parametrize("error", [ValueError("a mistake"), TimeoutError("of a socket")])
def test_after_an_error_of_our_own_the_next_scrape_asks_again(source: Slow, error: Exception) -> None:
    """It was raised at each scrape once, for ever."""
    source.error = error
    source.go.set()
    collector = TimeLimitedCollector(source)
    with pytest.raises(type(error)):
        up(collector)
    source.error = None
    assert up(collector) == 1
    collector.close()


__all__ = ["redis_server"]


def scrape(registry: CollectorRegistry) -> Scrape:
    return Scrape(generate_latest(registry).decode())


def test_the_lag_of_each_group_and_an_absent_redis_are_exported(redis_server: EmbeddedRedis) -> None:
    collector, registry = TimeLimitedCollector(StreamSource(lambda: redis_server.url)), CollectorRegistry()
    registry.register(collector)
    streams, name = Streams(connect(redis_server.url), length=100), BatchQueued.name
    streams.open("training", [name])
    streams.open("diversity", [name])
    streams.publish(EventRecord.of(BatchQueued(batch_id=str(number))) for number in range(5))
    streams.read("training", "reader", [name], count=3)
    found = scrape(registry)
    assert found["ratchet_redis_up"] == 1
    assert found.value("ratchet_events_pending", event=name, group="training") == 2
    assert found.value("ratchet_events_pending", event=name, group="diversity") == 5
    assert found.value("ratchet_stream_events", event=name) == 5
    redis_server.kill()
    assert scrape(registry)["ratchet_redis_up"] == 0
    redis_server.start()
    assert scrape(registry)["ratchet_redis_up"] == 1
    collector.close()


def test_a_server_that_was_slow_for_a_while_is_there_again(redis_server: EmbeddedRedis) -> None:
    """The reading continues while the source counts as down."""
    client = connect(redis_server.url)
    Streams(client, length=100).open("training", [BatchQueued.name])
    collector = TimeLimitedCollector(StreamSource(lambda: redis_server.url), limit_s=0.05)

    def up() -> float:
        return float(next(iter(collector.collect())).samples[0].value)

    wait_until(lambda: up() == 1, 60.0, "a first reading")

    def is_slow() -> bool:
        client.execute_command("CLIENT", "PAUSE", "300", "ALL")
        return up() == 0

    wait_until(is_slow, 60.0, "the server to be slow")
    wait_until(lambda: up() == 1, 60.0, "the server to be there again")
    collector.close()


def test_an_embedded_server_that_never_ran_is_away() -> None:
    def unknown() -> str:
        raise TransientError("no server runs here")

    collector, registry = TimeLimitedCollector(StreamSource(unknown)), CollectorRegistry()
    registry.register(collector)
    assert scrape(registry)["ratchet_redis_up"] == 0
    collector.close()

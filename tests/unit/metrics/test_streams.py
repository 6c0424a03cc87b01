from __future__ import annotations

from prometheus_client import CollectorRegistry
from ratchet.bus.connection import connect
from ratchet.bus.embedded import EmbeddedRedis
from ratchet.bus.streams import Letter, Streams
from ratchet.errors import TransientError
from ratchet.events.catalogue import BatchQueued
from ratchet.metrics.exposition import page
from ratchet.metrics.patience import PatientCollector
from ratchet.metrics.streams import StreamSource

from tests.support.redis import redis_server
from tests.support.scrape import Scrape
from tests.support.workers import wait_until

__all__ = ["redis_server"]


def scrape(registry: CollectorRegistry) -> Scrape:
    return Scrape(page(registry).body.decode())


def test_the_lag_of_each_group_is_told_and_an_absent_redis_too(redis_server: EmbeddedRedis) -> None:
    collector, registry = PatientCollector(StreamSource(lambda: redis_server.url)), CollectorRegistry()
    registry.register(collector)
    streams, name = Streams(connect(redis_server.url), length=100), BatchQueued.name
    streams.open("training", [name])
    streams.open("diversity", [name])
    streams.publish(Letter.of(BatchQueued(batch_id=str(number))) for number in range(5))
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
    """The reading goes on while it is told of as away."""
    client = connect(redis_server.url)
    Streams(client, length=100).open("training", [BatchQueued.name])
    collector = PatientCollector(StreamSource(lambda: redis_server.url), limit_s=0.05)

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

    collector, registry = PatientCollector(StreamSource(unknown)), CollectorRegistry()
    registry.register(collector)
    assert scrape(registry)["ratchet_redis_up"] == 0
    collector.close()

from __future__ import annotations

import threading

import pytest
from prometheus_client.core import Metric
from ratchet.errors import TransientError
from ratchet.metrics.exposition import single
from ratchet.metrics.patience import PatientCollector


class Slow:
    """Answers once it is let go; raises what it is given first."""

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


def up(collector: PatientCollector) -> float:
    return float(next(iter(collector.collect())).samples[0].value)


def test_a_slow_source_is_away_until_its_reading_is_there(source: Slow) -> None:
    collector = PatientCollector(source, limit_s=0.01)
    assert up(collector) == 0
    assert up(collector) == 0
    assert source.readings == 1
    source.go.set()
    collector = PatientCollector(source, limit_s=60)
    assert up(collector) == 1
    collector.close()


def test_trouble_is_told_and_the_next_scrape_asks_again(source: Slow) -> None:
    collector = PatientCollector(source, limit_s=60)
    source.error = TransientError("away")
    assert up(collector) == 0
    source.error = None
    source.go.set()
    assert up(collector) == 1
    collector.close()


def test_a_reading_serves_the_next_scrapes(source: Slow) -> None:
    source.go.set()
    collector = PatientCollector(source, cache_s=3600)
    assert [up(collector), up(collector)] == [1, 1]
    assert source.readings == 1
    collector.close()


def test_an_error_of_our_own_is_raised(source: Slow) -> None:
    source.error = ValueError("a mistake")
    collector = PatientCollector(source)
    with pytest.raises(ValueError, match="a mistake"):
        up(collector)
    collector.close()


@pytest.mark.parametrize("error", [ValueError("a mistake"), TimeoutError("of a socket")])
def test_after_an_error_of_our_own_the_next_scrape_asks_again(source: Slow, error: Exception) -> None:
    """It was raised at each scrape once, for ever."""
    source.error = error
    source.go.set()
    collector = PatientCollector(source)
    with pytest.raises(type(error)):
        up(collector)
    source.error = None
    assert up(collector) == 1
    collector.close()

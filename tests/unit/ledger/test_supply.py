from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.data.example import Example
from ratchet.ledger.queue import Supply, shortage, supply
from ratchet.ledger.tables import BatchRow, CheckpointRow
from ratchet.settings.queue import QueueSettings

from tests.support.home import small_home

QUEUE = QueueSettings(low_water=100, high_water=1_000, batch_examples=200, low_tokens=5_000, low_minutes=2.0)


def rows(count: int, start: int = 0) -> list[Example]:
    return [Example.ask(f"question {start + n}", "answer") for n in range(count)]


def test_each_low_mark_is_a_shortage_of_its_own() -> None:
    assert shortage(Supply(99, 50_000, 10.0), QUEUE) == "99 examples of 100"
    assert shortage(Supply(500, 4_999, 10.0), QUEUE) == "4,999 tokens of 5,000"
    assert shortage(Supply(500, 6_000, 100.0), QUEUE) == "1.0 minutes of training of 2.0"
    assert shortage(Supply(500, 50_000, 100.0), QUEUE) is None


def test_minutes_count_only_once_a_speed_was_measured() -> None:
    assert shortage(Supply(500, 5_000, None), QUEUE) is None


def test_a_refill_goes_on_above_the_mark_that_began_it() -> None:
    assert shortage(Supply(105, 50_000, 10.0), QUEUE) is None
    assert shortage(Supply(105, 50_000, 10.0), QUEUE, refilling=True) == "105 examples of 110"
    assert shortage(Supply(110, 50_000, 10.0), QUEUE, refilling=True) is None


def test_tokens_are_those_of_what_waits_and_of_what_is_left_of_the_open_batch(tmp_path: Path) -> None:
    with small_home(tmp_path) as home:
        home.add_batch(rows(100), state="queued", tokens=1_000)
        home.add_batch(rows(100, 100), state="training", tokens=2_000, offset=75)
        home.add_batch(rows(50, 200))
        home.add_batch(rows(10, 300), state="trained", tokens=100)
        checkpoint = home.add_checkpoint()
        with home.ledger.write() as tx:
            tx.session.get_one(CheckpointRow, checkpoint).tokens_per_s = 30.0
        with home.ledger.read() as session:
            found = supply(session)
            mean = sum(b.tokens for b in session.query(BatchRow)) / sum(b.examples for b in session.query(BatchRow))
        assert found.examples == 100 + 25 + 50
        assert found.tokens == 1_000 + 500 + round(50 * mean)
        assert found.minutes == found.tokens / 30.0 / 60


@pytest.mark.parametrize(
    ("found", "changed"),
    [
        (Supply(99, 50_000, 10.0), {"low_water": 99}),
        (Supply(500, 4_999, 10.0), {"low_tokens": 4_999}),
        (Supply(500, 6_000, 100.0), {"low_minutes": 1.0}),
        (Supply(105, 50_000, 10.0), {"hysteresis": 0.05}),
    ],
    ids=["low_water", "low_tokens", "low_minutes", "hysteresis"],
)
def test_every_mark_is_set(found: Supply, changed: dict[str, float]) -> None:
    assert shortage(found, QUEUE, refilling=True) is not None
    assert shortage(found, QUEUE.model_copy(update={"hysteresis": 0.0, **changed}), refilling=True) is None

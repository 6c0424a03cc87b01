from __future__ import annotations

from pathlib import Path

from ratchet.data.example import Example
from ratchet.ledger.queue import Supply, shortage, supply
from ratchet.ledger.tables import BatchRow, CheckpointRow
from ratchet.settings.queue import QueueSettings

from tests.support.home import small_home

QUEUE = QueueSettings(low_water=100, high_water=1_000, batch_examples=200)


def rows(count: int, start: int = 0) -> list[Example]:
    return [Example.ask(f"question {start + n}", "answer") for n in range(count)]


def test_too_few_examples_are_a_shortage() -> None:
    assert shortage(Supply(99, 50_000, 10.0), QUEUE) == "99 examples of 100"
    assert shortage(Supply(100, 0, None), QUEUE) is None


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


def test_the_low_mark_is_set() -> None:
    assert shortage(Supply(99, 50_000, 10.0), QUEUE.model_copy(update={"low_water": 99})) is None

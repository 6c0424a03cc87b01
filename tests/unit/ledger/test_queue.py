from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ratchet.data.example import Example
from ratchet.errors import PreconditionFailed
from ratchet.events.catalogue import BatchSubmitted
from ratchet.ledger import Ledger, Transaction
from ratchet.ledger.queue import (
    Depth,
    Origin,
    Supply,
    add_usage_counts,
    all_usage_counts,
    depth,
    low_mark,
    next_batch,
    shortage,
    submit,
    supply,
    usage_counts,
)
from ratchet.ledger.tables import BatchRow, CheckpointRow, DeadLetterRow
from ratchet.settings import Settings
from ratchet.settings.data import QueueSettings

from tests.support.home import small_home
from tests.support.rows import dead_letter


def add(tx: Transaction, name: str, priority: str = "normal", origin: Origin = "generation", **columns: Any) -> str:
    event = submit(tx, name * 64, 100, origin, {}, priority)
    tx.session.flush()
    row = tx.session.get_one(BatchRow, event.batch_id)
    for column, value in columns.items():
        setattr(row, column, value)
    return event.batch_id


def test_depth_counts_what_is_submitted_queued_and_the_rest_of_the_open_batch(ledger: Ledger) -> None:
    with ledger.write() as tx:
        add(tx, "a")
        add(tx, "b", state="queued", examples=90)
        add(tx, "c", state="training", examples=80, offset=30)
        for name, state in (("d", "trained"), ("e", "rejected"), ("f", "quarantined"), ("1", "skipped")):
            add(tx, name, state=state, examples=70)
    with ledger.read() as session:
        assert depth(session) == Depth(submitted=100, queued=90, running=50)
        assert depth(session).total == 240


def test_depth_of_one_origin(ledger: Ledger) -> None:
    with ledger.write() as tx:
        add(tx, "a", origin="correction")
        add(tx, "b", origin="user", state="queued", examples=90)
    with ledger.read() as session:
        assert depth(session, "correction").total == 100
        assert depth(session, "generation").total == 0


def test_an_empty_queue_has_no_next_batch(ledger: Ledger) -> None:
    with ledger.write() as tx:
        add(tx, "a")
        add(tx, "b", state="trained")
    with ledger.read() as session:
        assert next_batch(session) is None


def test_the_open_batch_goes_before_all_then_priority_then_waiting_time(ledger: Ledger) -> None:
    with ledger.write() as tx:
        waiting: dict[str, Any] = {"state": "queued", "examples": 100}
        order = [
            add(tx, "a", "low", state="training", examples=100, queued_at=9.0),
            add(tx, "b", "high", queued_at=7.0, **waiting),
            add(tx, "c", "high", queued_at=8.0, **waiting),
            add(tx, "d", queued_at=1.0, **waiting),
            add(tx, "e", queued_at=2.0, **waiting),
            add(tx, "f", "low", queued_at=0.5, **waiting),
        ]
    found = []
    for _ in order:
        with ledger.write() as tx:
            batch = next_batch(tx.session)
            assert batch is not None
            found.append(batch.id)
            batch.state = "trained"
    assert found == order


def test_dead_lettered_batches_neither_count_nor_come_next(ledger: Ledger) -> None:
    with ledger.write() as tx:
        stuck = add(tx, "a", state="training", examples=100)
        ungated = add(tx, "b")
        waiting = add(tx, "c", state="queued", examples=70)
        for system, batch_id in (("training", stuck), ("correction", ungated)):
            tx.session.add(dead_letter(system, "batch", batch_id))
    with ledger.read() as session:
        following = next_batch(session)
        assert depth(session) == Depth(submitted=0, queued=70, running=0)
    assert following is not None
    assert following.id == waiting
    with ledger.write() as tx:
        for letter in tx.session.query(DeadLetterRow):
            letter.resolved_at = tx.now
    with ledger.read() as session:
        following = next_batch(session)
        assert depth(session).total == 270
    assert following is not None
    assert following.id == stuck


def test_submitting_emits_an_event(ledger: Ledger) -> None:
    with ledger.write() as tx:
        event = submit(tx, "a" * 64, 5, "user", {"file": "mine.jsonl"}, "high")
    with ledger.read() as session:
        batch = session.get_one(BatchRow, "a" * 16)
    assert isinstance(event, BatchSubmitted)
    assert event.batch_id == batch.id
    assert (batch.state, batch.priority, batch.submitted_examples) == ("submitted", 0, 5)
    assert batch.provenance == {"file": "mine.jsonl"}


def test_repeated_rows_are_refused_with_the_state_of_the_first_batch(ledger: Ledger) -> None:
    with ledger.write() as tx:
        add(tx, "a", state="trained")
    with (
        pytest.raises(PreconditionFailed, match="aaaaaaaaaaaaaaaa exists already and is trained"),
        ledger.write() as tx,
    ):
        submit(tx, "a" * 64, 100, "user", {})


def test_uses_add_up_over_batches(ledger: Ledger) -> None:
    with ledger.write() as tx:
        add_usage_counts(tx, {f"item {number}": 1 for number in range(1_200)})
        add_usage_counts(tx, {"item 7": 4, "new": 2})
        add_usage_counts(tx, {})
    with ledger.read() as session:
        uses = all_usage_counts(session)
        asked = usage_counts(session, ["item 7", "never", *(f"item {number}" for number in range(600, 1_300))])
    assert len(asked) == 601
    assert (asked["item 7"], asked["item 1199"], "never" in asked) == (5, 1, False)
    assert len(uses) == 1_201
    assert (uses["item 7"], uses["item 8"], uses["new"]) == (5, 1, 2)


QUEUE = QueueSettings(low_water=100, high_water=1_000, batch_examples=200)


def rows(count: int, start: int = 0) -> list[Example]:
    return [Example.ask(f"question {start + n}", "answer") for n in range(count)]


def test_too_few_examples_are_a_shortage() -> None:
    assert shortage(Supply(99, 50_000, 10.0), QUEUE.low_water) == "99 examples of 100"
    assert shortage(Supply(100, 0, None), QUEUE.low_water) is None


def test_a_refill_continues_above_the_low_mark() -> None:
    assert shortage(Supply(105, 50_000, 10.0), QUEUE.low_water) is None
    assert shortage(Supply(105, 50_000, 10.0), QUEUE.low_water, refilling=True) == "105 examples of 110"
    assert shortage(Supply(110, 50_000, 10.0), QUEUE.low_water, refilling=True) is None


def test_tokens_count_waiting_batches_and_the_rest_of_the_open_one(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(("families", "mark"), [([{"name": "reverse", "levels": [1]}], 99), ([], 0)])
def test_the_low_mark_follows_the_setting_and_is_for_families(families: list[dict[str, Any]], mark: int) -> None:
    settings = Settings(queue={"low_water": 99}, suites={"families": families})
    assert low_mark(settings) == mark
    assert shortage(Supply(99, 50_000, 10.0), low_mark(settings)) is None
    assert (shortage(Supply(98, 50_000, 10.0), low_mark(settings)) is None) == (not families)


def test_rows_that_are_to_be_stored_are_no_part_of_the_depth(ledger: Ledger) -> None:
    with ledger.write() as tx:
        event = submit(tx, "f" * 64, 100, "user", {}, task="menus")
        tx.session.flush()
        assert tx.session.get_one(BatchRow, event.batch_id).task == "menus"
        assert depth(tx.session) == Depth(0, 0, 0)

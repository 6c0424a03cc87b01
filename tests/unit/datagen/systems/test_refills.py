"""When generation makes a batch, and what holds it back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from datagen.spending import used_since
from datagen.systems.generation import SYSTEM as GENERATION
from miner.systems.correction import SYSTEM as CORRECTION
from ratchet.ledger.tables import BatchRow, SpendingRow

from tests.support.home import Home, small_home

from .queued import batches, refill_numbers, total

if TYPE_CHECKING:
    from conftest import TeacherServer


def test_with_the_trainer_stopped_the_queue_settles_between_the_marks(home: Home) -> None:
    queue = home.settings.queue
    bus = home.bus(GENERATION, CORRECTION)
    bus.sweep()
    rested = total(home)
    assert queue.low_water <= rested <= queue.high_water
    for _ in range(5):
        assert bus.sweep() == []
    assert total(home) == rested


def test_a_queue_just_below_low_water_is_filled_up_and_never_above_high_water(tmp_path: Path) -> None:
    tight = {"low_water": 300, "high_water": 500, "batch_examples": 200}
    with small_home(tmp_path, queue=tight) as home:
        bus = home.bus(GENERATION, CORRECTION)
        bus.sweep()
        with home.ledger.write() as tx:
            first = tx.session.query(BatchRow).order_by(BatchRow.submitted_at).first()
            assert first is not None
            first.state, first.offset = "training", first.examples - (299 - (total(home) - first.examples))
        assert total(home) == 299
        bus.sweep()
        assert 300 <= total(home) <= 500


def test_the_open_batch_counts_with_its_remaining_examples(home: Home) -> None:
    bus = home.bus(GENERATION, CORRECTION)
    bus.sweep()
    before = len(batches(home))
    with home.ledger.write() as tx:
        for row in tx.session.query(BatchRow):
            row.state, row.offset = "training", row.examples - 1
    bus.sweep()
    assert len(batches(home)) > before


def test_the_hourly_budget_is_kept(tmp_path: Path) -> None:
    with small_home(tmp_path, generation={"hourly_examples": 250}) as home:
        home.bus(GENERATION, CORRECTION).sweep()
        assert [batch.submitted_examples for batch in batches(home)] == [200, 50]


def test_a_cooldown_lies_between_two_batches(tmp_path: Path) -> None:
    with small_home(tmp_path, generation={"cooldown_s": 3_600.0}) as home:
        home.bus(GENERATION, CORRECTION).sweep()
        assert len(batches(home)) == 1


def test_a_source_that_makes_nothing_is_asked_with_growing_pauses(tmp_path: Path) -> None:
    sources = [{"name": "script", "options": {"command": ["true"]}}]
    with small_home(tmp_path, generation={"sources": sources}) as home:
        bus = home.bus(GENERATION, CORRECTION)
        for _ in range(3):
            bus.sweep()
        assert [numbers["outcome"] for numbers in refill_numbers(home)] == ["nothing made"]
        assert batches(home) == []
        assert home.dead() == []


def test_a_source_over_its_daily_tokens_is_skipped(tmp_path: Path) -> None:
    paid = {"name": "teacher", "share": 1e9, "daily_tokens": 1, "options": {"base_url": "http://x", "model": "m"}}
    with small_home(tmp_path, generation={"sources": [{"name": "tasks"}, paid]}) as home:
        with home.ledger.write() as tx:
            used = {"requests": 1, "prompt_tokens": 2, "answer_tokens": 0}
            tx.session.add(SpendingRow(generator="teacher", refill="1", created_at=tx.now, **used))
        home.bus(GENERATION, CORRECTION).sweep()
        assert {batch.provenance["generator"] for batch in batches(home)} == {"tasks"}


def test_the_tokens_of_a_failed_attempt_count_in_cost_and_daily_tokens(
    tmp_path: Path, teacher_server: TeacherServer
) -> None:
    teacher_server.refused = range(10, 11)
    teacher = {"name": "teacher", "daily_tokens": 1_000_000, "options": {"base_url": teacher_server.url, "model": "m"}}
    families = [{"name": "chain_sum", "levels": [2, 3]}]
    queue = {"low_water": 20, "high_water": 40, "batch_examples": 20}
    told = {"suites": {"families": families}, "queue": queue, "generation": {"sources": [teacher]}}
    with small_home(tmp_path, inference={"concurrency": 2}, **told) as home:
        bus = home.bus(GENERATION)
        while not batches(home):
            bus.sweep()
            assert home.dead() == []
        (numbers,) = refill_numbers(home)[:1]
        with home.ledger.read() as session:
            before = session.query(SpendingRow).filter(SpendingRow.refill == "1").all()
            used = used_since(session, 0.0)
    came = sum(row.requests for row in before)
    assert numbers["cost"] == {"requests": came, "prompt_tokens": 7 * came, "answer_tokens": 5 * came}
    assert came >= 9 + 20
    assert used["teacher"] >= 12 * came


@pytest.mark.parametrize(("high_water", "rests_at"), [(590, 400), (600, 600)])
def test_the_high_mark_follows_the_setting(tmp_path: Path, high_water: int, rests_at: int) -> None:
    """The refill would continue to a tenth above the low mark, 429."""
    queue = {"low_water": 390, "high_water": high_water, "batch_examples": 200}
    with small_home(tmp_path / "run", queue=queue) as home:
        home.bus(GENERATION).sweep()
        assert total(home) == rests_at

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from datagen.generators.tasks import CHUNK
from datagen.remake import remake
from datagen.systems.curriculum import SYSTEM as CURRICULUM
from datagen.systems.generation import SYSTEM as GENERATION
from datagen.systems.generation import used_since
from miner.systems.correction import SYSTEM as CORRECTION
from ratchet.data.example import Example
from ratchet.errors import Refused
from ratchet.evaluation.standing import held_out
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.queue import depth
from ratchet.ledger.supply import supply
from ratchet.ledger.tables import Batch, Checkpoint, Curriculum, DeadLetter, Spending, Verdict
from ratchet.settings import Settings
from ratchet.systems import Work
from ratchet.systems.poison import retry
from ratchet.systems.system import Lane, System
from ratchet.systems.verdict import Outcome
from ratchet.tasks.graders import item_key
from ratchet.testing.bus import InlineChildren
from ratchet.testing.home import Home, small_home

if TYPE_CHECKING:
    from conftest import TeacherServer


def total(home: Home) -> int:
    with home.ledger.read() as session:
        return depth(session).total


def batches(home: Home) -> list[Batch]:
    with home.ledger.read() as session:
        return list(session.query(Batch).order_by(Batch.submitted_at))


def rows(home: Home, batch: Batch) -> list[Example]:
    return [Example.model_validate_json(line) for line in home.artifacts.open_lines(batch.submitted_artifact)]


def test_with_the_trainer_stopped_the_queue_comes_to_rest_between_the_waters(home: Home) -> None:
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
            first = tx.session.query(Batch).order_by(Batch.submitted_at).first()
            assert first is not None
            first.state, first.offset = "training", first.examples - (299 - (total(home) - first.examples))
        assert total(home) == 299
        bus.sweep()
        assert 300 <= total(home) <= 500


def test_the_open_batch_counts_only_with_what_is_left_of_it(home: Home) -> None:
    bus = home.bus(GENERATION, CORRECTION)
    bus.sweep()
    before = len(batches(home))
    with home.ledger.write() as tx:
        for row in tx.session.query(Batch):
            row.state, row.offset = "training", row.examples - 1
    bus.sweep()
    assert len(batches(home)) > before


def test_nothing_held_out_is_generated_and_the_gate_finds_no_fault(home: Home) -> None:
    home.bus(GENERATION, CORRECTION).sweep()
    held = held_out(home.settings.suites)
    made = [row for batch in batches(home) for row in rows(home, batch)]
    assert len(made) >= home.settings.queue.low_water
    assert not [row for row in made if item_key(row) in held]
    assert sum(batch.quarantined for batch in batches(home)) == 0


def test_no_two_refills_are_alike(home: Home) -> None:
    home.bus(GENERATION, CORRECTION).sweep()
    first, second = batches(home)[:2]
    assert first.provenance["seed"] != second.provenance["seed"]
    assert [row.id for row in rows(home, first)] != [row.id for row in rows(home, second)]


def test_before_the_curriculum_speaks_the_mix_is_the_beginners(home: Home) -> None:
    home.bus(GENERATION).sweep()
    mix = batches(home)[0].provenance["mix"]
    assert mix["chain_sum/1"] > mix["chain_sum/2"] > 0
    assert sum(mix.values()) == pytest.approx(1.0)


def test_the_published_mix_is_what_the_next_batches_are_made_of(home: Home) -> None:
    checkpoint = home.add_checkpoint()
    home.add_record(checkpoint, "probe", lambda item: item.level == 1)
    home.bus(CURRICULUM).sweep()
    home.bus(GENERATION).sweep()
    with home.ledger.read() as session:
        published = session.query(Curriculum).one()
    assert published.experiment["state"] == "open"
    shares = {arm["name"]: arm["share"] for arm in published.experiment["arms"]}
    for batch in batches(home):
        drawn = batch.provenance["assignment"]
        assert drawn["probability"] == shares[drawn["arm"]]
        weights = {f"{s['family']}/{s['level']}": s["weight"] for s in published.mixes[drawn["arm"]]["shares"]}
        assert batch.provenance["mix"] == weights
        assert batch.provenance["parents"] == [f"curriculum:{published.id}"]
        made = rows(home, batch)
        share = sum(row.metadata["level"] == 2 for row in made) / len(made)
        assert abs(share - weights.get("chain_sum/2", 0) - weights.get("reverse/2", 0)) < 0.12


def test_a_decided_experiment_makes_every_batch_the_winners(home: Home) -> None:
    home.add_record(home.add_checkpoint(), "probe", lambda item: item.level == 1)
    home.bus(CURRICULUM).sweep()
    with home.ledger.write() as tx:
        row = tx.session.query(Curriculum).one()
        arms = [{**arm, "share": float(arm["name"] == "reverse")} for arm in row.experiment["arms"]]
        row.experiment = {**row.experiment, "state": "decided", "leader": "reverse", "arms": arms}
    home.bus(GENERATION).sweep()
    drawn = [batch.provenance["assignment"] for batch in batches(home)]
    assert drawn == [{"arm": "reverse", "probability": 1.0}] * len(drawn)


def test_before_the_first_run_nothing_is_generated(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    ledger = Ledger(settings.ledger_url)
    migrate(ledger)
    with ledger.read() as session:
        assert GENERATION.lanes[0].find(session, settings) == []
    ledger.close()


def test_a_refill_in_the_dead_letters_does_not_stop_the_next_and_comes_back_when_retried(home: Home) -> None:
    (lane,) = GENERATION.lanes

    def do(work: Work) -> Outcome:
        if work.subject.id == "2":
            raise ValueError("a bad seed")
        return lane.do(work)

    poisoned = System("generation", "4090", "", GENERATION.says, 1.0, (Lane("generate", (), lane.find, do),))
    bus = home.bus(poisoned, CORRECTION)
    for _ in range(6):
        bus.sweep()
    assert set(home.verdicts("generation")) >= {"1", "3"}
    assert "2" not in home.verdicts("generation")
    with home.ledger.write() as tx:
        retry(tx, tx.session.query(DeadLetter).one().id, "a test")
        for row in tx.session.query(Batch):
            row.state = "trained"
    home.bus(GENERATION, CORRECTION).sweep()
    assert home.verdicts("generation")["2"] == "submitted"


def refill_numbers(home: Home) -> list[dict[str, Any]]:
    with home.ledger.read() as session:
        rows = session.query(Verdict).filter(Verdict.system == "generation").order_by(Verdict.id)
        return [{"outcome": row.outcome, **row.numbers} for row in rows]


def test_a_refill_tells_what_it_made_and_how(home: Home) -> None:
    home.bus(GENERATION, CORRECTION).sweep()
    first = refill_numbers(home)[0]
    assert first["generator"] == "tasks"
    assert sum(first["made"].values()) == home.settings.queue.batch_examples
    assert first["assignment"] == {"arm": "progressive", "probability": 1.0}
    assert [numbers["goes_on"] for numbers in refill_numbers(home)][-1] is False


def test_every_batch_can_be_made_again_by_its_id(home: Home, tmp_path: Path) -> None:
    home.add_record(home.add_checkpoint(), "probe", lambda item: item.level == 1)
    home.bus(CURRICULUM).sweep()
    home.bus(GENERATION).sweep()
    made = batches(home)
    assert made
    for batch in made:
        again = list(remake(home.settings, batch, tmp_path))
        assert again == list(home.artifacts.open_lines(batch.submitted_artifact))


def test_a_batch_is_not_made_again_from_other_families_or_pools(home: Home, tmp_path: Path) -> None:
    home.bus(GENERATION).sweep()
    batch = batches(home)[0]
    order = batch.provenance["order"]
    batch.provenance = {**batch.provenance, "order": {**order, "families": {"chain_sum": "0"}}}
    with pytest.raises(Refused, match="made by chain_sum 0, which is now 1"):
        remake(home.settings, batch, tmp_path)
    batch.provenance = {**batch.provenance, "order": {**order, "hold_out_seed": 1}}
    with pytest.raises(Refused, match=r"made with suites.seed 1"):
        remake(home.settings, batch, tmp_path)
    batch.provenance = {"generator": "file"}
    with pytest.raises(Refused, match="does not remember"):
        remake(home.settings, batch, tmp_path)


def test_minutes_of_training_left_call_for_a_refill_too(tmp_path: Path) -> None:
    queue = {"low_water": 100, "high_water": 2_000, "batch_examples": 200, "low_minutes": 1.0}
    with small_home(tmp_path, queue=queue) as home:
        bus = home.bus(GENERATION, CORRECTION)
        bus.sweep()
        rested = total(home)
        with home.ledger.read() as session:
            tokens = supply(session).tokens
        checkpoint = home.add_checkpoint()
        with home.ledger.write() as tx:
            tx.session.get_one(Checkpoint, checkpoint).tokens_per_s = tokens / 30
        bus.sweep()
        assert total(home) > rested
        with home.ledger.read() as session:
            minutes = supply(session).minutes
        assert minutes is not None
        assert minutes >= 1.1


def test_an_hours_budget_is_kept_and_the_queue_waits(tmp_path: Path) -> None:
    with small_home(tmp_path, generation={"hourly_examples": 250}) as home:
        home.bus(GENERATION, CORRECTION).sweep()
        assert [batch.submitted_examples for batch in batches(home)] == [200, 50]


def test_a_cooldown_lies_between_two_batches(tmp_path: Path) -> None:
    with small_home(tmp_path, generation={"cooldown_s": 3_600.0}) as home:
        home.bus(GENERATION, CORRECTION).sweep()
        assert len(batches(home)) == 1


def test_a_source_that_makes_nothing_is_not_asked_without_end(tmp_path: Path) -> None:
    sources = [{"name": "script", "options": {"command": ["true"]}}]
    with small_home(tmp_path, generation={"sources": sources}) as home:
        bus = home.bus(GENERATION, CORRECTION)
        for _ in range(3):
            bus.sweep()
        assert [numbers["outcome"] for numbers in refill_numbers(home)] == ["nothing made"]
        assert batches(home) == []
        assert home.dead() == []


def test_a_source_over_its_days_tokens_leaves_the_batches_to_the_others(tmp_path: Path) -> None:
    paid = {"name": "teacher", "share": 1e9, "daily_tokens": 1, "options": {"base_url": "http://x", "model": "m"}}
    with small_home(tmp_path, generation={"sources": [{"name": "tasks"}, paid]}) as home:
        with home.ledger.write() as tx:
            used = {"requests": 1, "prompt_tokens": 2, "answer_tokens": 0}
            tx.session.add(Spending(generator="teacher", refill="1", created_at=tx.now, **used))
        home.bus(GENERATION, CORRECTION).sweep()
        assert {batch.provenance["generator"] for batch in batches(home)} == {"tasks"}


def test_what_an_attempt_that_failed_used_of_a_teacher_is_in_the_refills_cost_and_in_the_days_tokens(
    tmp_path: Path, teacher_server: TeacherServer
) -> None:
    teacher_server.refused = range(10, 11)
    teacher = {"name": "teacher", "daily_tokens": 1_000_000, "options": {"base_url": teacher_server.url, "model": "m"}}
    families = [{"name": "chain_sum", "levels": [2, 3]}]
    queue = {"low_water": 20, "high_water": 40, "batch_examples": 20}
    told = {"suites": {"families": families}, "queue": queue, "generation": {"sources": [teacher]}}
    with small_home(tmp_path, inference={"concurrency": 2, "attempts": 1}, **told) as home:
        bus = home.bus(GENERATION)
        while not batches(home):
            bus.sweep()
            assert home.dead() == []
        (numbers,) = refill_numbers(home)[:1]
        with home.ledger.read() as session:
            before = session.query(Spending).filter(Spending.refill == "1").all()
            used = used_since(session, 0.0)
    came = sum(row.requests for row in before)
    assert numbers["cost"] == {"requests": came, "prompt_tokens": 7 * came, "answer_tokens": 5 * came}
    assert came >= 9 + 20
    assert used["teacher"] >= 12 * came


def test_how_often_an_item_may_be_in_a_batch_is_set(tmp_path: Path) -> None:
    def most_uses(cap: int) -> int:
        with small_home(tmp_path / str(cap), queue={"epoch_cap": cap}) as home:
            home.bus(GENERATION).sweep()
            return max(Counter(item_key(row) for row in rows(home, batches(home)[0])).values())

    assert most_uses(1) == 1 < most_uses(3_000)


@dataclass
class Counting(InlineChildren):
    """Children in this process that are counted."""

    asked: list[str] = field(default_factory=list)

    def run(self, target: str, spec: dict[str, Any], **limits: Any) -> dict[str, Any]:
        self.asked.append(target)
        return super().run(target, spec, **limits)


@pytest.mark.parametrize("workers", [1, 2])
def test_in_how_many_processes_examples_are_made_is_set(tmp_path: Path, workers: int) -> None:
    children = Counting()
    queue = {"low_water": 1, "high_water": 10_000, "batch_examples": CHUNK + 1}
    with small_home(tmp_path / "run", queue=queue, generation={"workers": workers}) as home:
        home.bus(GENERATION, children=children).sweep()
    assert children.asked == ["datagen.generators.tasks:write_chunks"] * workers


@pytest.mark.parametrize(("high_water", "rests_at"), [(500, 400), (600, 600)])
def test_above_which_depth_nothing_is_made_is_set(tmp_path: Path, high_water: int, rests_at: int) -> None:
    """The refill would go on to twice the low mark."""
    queue = {"low_water": 300, "high_water": high_water, "batch_examples": 200, "hysteresis": 1.0}
    with small_home(tmp_path / "run", queue=queue) as home:
        home.bus(GENERATION).sweep()
        assert total(home) == rests_at

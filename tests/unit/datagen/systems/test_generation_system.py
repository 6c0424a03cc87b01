from __future__ import annotations

from pathlib import Path

import pytest
from datagen.systems.curriculum import SYSTEM as CURRICULUM
from datagen.systems.generation import SYSTEM as GENERATION
from miner.systems.correction import SYSTEM as CORRECTION
from ratchet.data.example import Example
from ratchet.evaluation.standing import held_out
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.queue import depth
from ratchet.ledger.tables import Batch, Curriculum, DeadLetter
from ratchet.settings import Settings
from ratchet.systems import Work
from ratchet.systems.poison import retry
from ratchet.systems.system import Lane, System
from ratchet.systems.verdict import Outcome
from ratchet.tasks.graders import item_key
from ratchet.testing.home import Home, small_home


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

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from datagen.generators.tasks import CHUNK
from datagen.systems.curriculum import SYSTEM as CURRICULUM
from datagen.systems.generation import SYSTEM as GENERATION
from miner.systems.correction import SYSTEM as CORRECTION
from ratchet.evaluation.build_suites import held_out
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import BatchRow, CurriculumRow, DeadLetterRow
from ratchet.settings import Settings
from ratchet.systems import Work
from ratchet.systems.dead_letters import retry
from ratchet.systems.system import Lane, System
from ratchet.systems.work import Outcome
from ratchet.tasks.graders import item_key

from tests.support.bus import InlineChildren
from tests.support.home import Home, small_home

from .queued import batches, refill_numbers, rows


def test_no_held_out_item_is_generated_and_the_gate_accepts_every_row(home: Home) -> None:
    home.bus(GENERATION, CORRECTION).sweep()
    held = held_out(home.settings.suites)
    made = [row for batch in batches(home) for row in rows(home, batch)]
    assert len(made) >= home.settings.queue.low_water
    assert not [row for row in made if item_key(row) in held]
    assert sum(batch.quarantined for batch in batches(home)) == 0


def test_no_two_refills_are_equal(home: Home) -> None:
    home.bus(GENERATION, CORRECTION).sweep()
    first, second = batches(home)[:2]
    assert first.provenance["seed"] != second.provenance["seed"]
    assert [row.id for row in rows(home, first)] != [row.id for row in rows(home, second)]


def test_before_the_first_curriculum_the_mix_is_for_a_beginner(home: Home) -> None:
    home.bus(GENERATION).sweep()
    mix = batches(home)[0].provenance["mix"]
    assert mix["chain_sum/1"] > mix["chain_sum/2"] > 0
    assert sum(mix.values()) == pytest.approx(1.0)


def test_batches_follow_the_published_mix(home: Home) -> None:
    checkpoint = home.add_checkpoint()
    home.add_record(checkpoint, "probe", lambda item: item.level == 1)
    home.bus(CURRICULUM).sweep()
    home.bus(GENERATION).sweep()
    with home.ledger.read() as session:
        published = session.query(CurriculumRow).one()
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


def test_after_a_decided_experiment_every_batch_uses_the_winner(home: Home) -> None:
    home.add_record(home.add_checkpoint(), "probe", lambda item: item.level == 1)
    home.bus(CURRICULUM).sweep()
    with home.ledger.write() as tx:
        row = tx.session.query(CurriculumRow).one()
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
    lane = GENERATION.lane("generate")

    def do(work: Work) -> Outcome:
        if work.subject.id == "2":
            raise ValueError("a bad seed")
        return lane.do(work)

    poisoned = System("generation", "4090", "", GENERATION.emits, 1.0, (Lane("generate", (), lane.find, do),))
    bus = home.bus(poisoned, CORRECTION)
    for _ in range(6):
        bus.sweep()
    assert set(home.verdicts("generation")) >= {"1", "3"}
    assert "2" not in home.verdicts("generation")
    with home.ledger.write() as tx:
        retry(tx, tx.session.query(DeadLetterRow).one().id, "a test")
        for row in tx.session.query(BatchRow):
            row.state = "trained"
    home.bus(GENERATION, CORRECTION).sweep()
    assert home.verdicts("generation")["2"] == "submitted"


def test_impossible_refills_do_not_fill_the_dead_letters(home: Home) -> None:
    lane = GENERATION.lane("generate")

    def do(_work: Work) -> Outcome:
        raise ValueError("a family that raises whatever it is asked")

    bus = home.bus(System("generation", "4090", "", GENERATION.emits, 1.0, (Lane("generate", (), lane.find, do),)))
    for _ in range(20):
        bus.sweep()
    assert len(home.dead()) == 2


def test_a_refill_records_its_provenance(home: Home) -> None:
    home.bus(GENERATION, CORRECTION).sweep()
    first = refill_numbers(home)[0]
    assert first["generator"] == "tasks"
    assert sum(first["made"].values()) == home.settings.queue.batch_examples
    assert first["assignment"] == {"arm": "progressive", "probability": 1.0}
    assert [numbers["goes_on"] for numbers in refill_numbers(home)][-1] is False


def test_the_epoch_cap_follows_the_setting(tmp_path: Path) -> None:
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
def test_the_number_of_generating_processes_follows_the_setting(tmp_path: Path, workers: int) -> None:
    children = Counting()
    queue = {"low_water": 1, "high_water": 10_000, "batch_examples": CHUNK + 1}
    with small_home(tmp_path / "run", queue=queue, generation={"workers": workers}) as home:
        home.bus(GENERATION, children=children).sweep()
    assert children.asked == ["datagen.generators.tasks:write_chunks"] * workers

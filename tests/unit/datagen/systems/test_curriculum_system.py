from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest
from datagen.mix import EXHAUSTED_CAP
from datagen.systems.curriculum import SYSTEM as CURRICULUM
from miner.systems.correction import SYSTEM as CORRECTION
from miner.systems.diversity import SYSTEM as DIVERSITY
from ratchet.data.example import Example
from ratchet.events.catalogue import CurriculumChanged
from ratchet.ledger.queue import Origin
from ratchet.ledger.tables import BatchRow, CheckpointRow, CurriculumRow, TrialRow
from ratchet.tasks import registry
from ratchet.tasks.family import to_example

from tests.support.home import Home, Knows, small_home

SEEDS = count(100)


def published(home: Home) -> list[CurriculumRow]:
    with home.ledger.read() as session:
        return list(session.query(CurriculumRow).order_by(CurriculumRow.id))


def knowing(items: int) -> Knows:
    """A fake model that answers this number of probe items right, always the same ones first."""
    answered: set[str] = set()

    def knows(item: Example) -> bool:
        if len(answered) < items:
            answered.add(item.id)
        return item.id in answered

    return knows


def weights(row: CurriculumRow) -> dict[str, float]:
    return {f"{share['family']}/{share['level']}": share["weight"] for share in row.mix["shares"]}


def test_a_new_mix_is_published_with_its_reason(home: Home) -> None:
    checkpoint = home.add_checkpoint()
    home.add_record(checkpoint, "probe", lambda item: item.family == "reverse" and item.level == 1)
    (event,) = home.bus(CURRICULUM).sweep()
    (row,) = published(home)
    assert isinstance(event, CurriculumChanged)
    assert event.curriculum_id == row.id
    assert row.reason.startswith("mastered: reverse 1; batches: progressive ")
    assert home.verdicts("curriculum") == {checkpoint: "changed"}


@pytest.mark.parametrize(("mastery", "reason"), [(0.9, "mastered: nothing yet"), (0.4, "mastered: chain_sum 1, ")])
def test_mastery_follows_the_setting(tmp_path: Path, mastery: float, reason: str) -> None:
    turns = count()
    with small_home(tmp_path / "run", curriculum={"mastery": mastery}) as home:
        home.add_record(home.add_checkpoint(), "probe", lambda _item: next(turns) % 2 == 0)
        home.bus(CURRICULUM).sweep()
        assert published(home)[0].reason.startswith(reason)


def test_an_evaluation_without_news_changes_no_mix(home: Home) -> None:
    for _ in range(2):
        home.add_record(home.add_checkpoint(), "probe", lambda _item: False)
        home.bus(CURRICULUM).sweep()
    assert list(home.verdicts("curriculum").values()) == ["changed", "unchanged"]
    assert len(published(home)) == 1


def test_an_older_record_does_not_change_the_mix(home: Home) -> None:
    old, new = home.add_checkpoint(), home.add_checkpoint()
    home.add_record(old, "probe", lambda _item: False)
    home.add_record(new, "probe", lambda item: item.level == 1)
    home.bus(CURRICULUM).sweep()
    assert home.verdicts("curriculum") == {new: "changed", old: "superseded"}


def test_the_base_models_record_shapes_the_first_mix(home: Home) -> None:
    home.add_record(home.base_id(), "probe", lambda _item: False)
    home.bus(CURRICULUM).sweep()
    assert home.verdicts("curriculum") == {home.base_id(): "changed"}


def test_a_coverage_gap_of_generated_batches_shifts_the_mix_in_spite_of_correction_examples(home: Home) -> None:
    home.add_record(home.add_checkpoint(), "probe", lambda _item: False)
    bus = home.bus(CORRECTION, DIVERSITY, CURRICULUM)
    bus.sweep()
    before = weights(published(home)[-1])
    reverses = [to_example(registry.get("reverse").generate(1, seed), "generation") for seed in range(40)]
    home.add_batch(reverses, provenance={"mix": before, "exhausted": ["reverse/2"]})
    bus.sweep()
    after = weights(published(home)[-1])
    assert after["chain_sum/1"] > before["chain_sum/1"]
    assert after["reverse/2"] <= EXHAUSTED_CAP
    corrections = [to_example(registry.get("reverse").generate(1, seed), "correction") for seed in range(50, 60)]
    home.add_batch(corrections, "correction")
    bus.sweep()
    assert weights(published(home)[-1]) == after


def drawn(arm: str, probability: float = 0.4) -> dict[str, Any]:
    return {"assignment": {"arm": arm, "probability": probability}}


def taught(home: Home, items: int, provenance: dict[str, Any], origin: Origin = "generation") -> str:
    """A checkpoint trained on its own batch, with a record in which this number of the 40 items is right."""
    batch = home.add_batch([to_example(registry.get("reverse").generate(1, next(SEEDS)), "test")], origin)
    with home.ledger.write() as tx:
        tx.session.get_one(BatchRow, batch).provenance = provenance
    checkpoint = home.add_checkpoint(batch)
    home.add_record(checkpoint, "probe", knowing(items))
    return checkpoint


def trials(home: Home) -> list[TrialRow]:
    with home.ledger.read() as session:
        return list(session.query(TrialRow).order_by(TrialRow.checkpoint_id))


def test_a_trial_is_the_paired_gain_over_a_stretch_of_one_arms_training(home: Home) -> None:
    home.add_record(home.base_id(), "probe", knowing(10))
    home.bus(CURRICULUM).sweep()
    checkpoint = taught(home, 16, drawn("adaptive"))
    home.bus(CURRICULUM).sweep()
    (trial,) = trials(home)
    assert (trial.before_id, trial.checkpoint_id, trial.arm) == (home.base_id(), checkpoint, "adaptive")
    assert (trial.gains, trial.losses, trial.items, trial.tokens) == (6, 0, 40, 1_000)
    (arm,) = [a for a in published(home)[-1].experiment["arms"] if a["name"] == "adaptive"]
    assert arm["trials"] == 1


def test_a_batch_that_was_not_assigned_at_random_is_no_trial(home: Home) -> None:
    home.add_record(home.base_id(), "probe", knowing(10))
    taught(home, 12, drawn("progressive", probability=1.0))
    taught(home, 14, drawn("adaptive"), "correction")
    taught(home, 16, {}, "user")
    home.bus(CURRICULUM).sweep()
    assert trials(home) == []


def test_a_checkpoint_without_a_record_is_spanned_and_counted_once(home: Home) -> None:
    home.add_record(home.base_id(), "probe", knowing(10))
    batch = home.add_batch([to_example(registry.get("reverse").generate(1, 1), "test")])
    with home.ledger.write() as tx:
        tx.session.get_one(BatchRow, batch).provenance = drawn("mixed")
    late = home.add_checkpoint(batch)
    newest = taught(home, 20, drawn("mixed"))
    home.bus(CURRICULUM).sweep()
    (trial,) = trials(home)
    assert (trial.before_id, trial.checkpoint_id, trial.tokens) == (home.base_id(), newest, 2_000)
    assert trial.through["checkpoints"] == [late]
    home.add_record(late, "probe", knowing(15))
    home.bus(CURRICULUM).sweep()
    assert [t.checkpoint_id for t in trials(home)] == [newest]
    assert home.verdicts("curriculum")[late] == "superseded"


def test_a_stretch_of_two_arms_is_no_trial(home: Home) -> None:
    home.add_record(home.base_id(), "probe", knowing(10))
    batch = home.add_batch([to_example(registry.get("reverse").generate(1, 1), "test")])
    with home.ledger.write() as tx:
        tx.session.get_one(BatchRow, batch).provenance = drawn("mixed")
    home.add_checkpoint(batch)
    taught(home, 20, drawn("adaptive"))
    home.bus(CURRICULUM).sweep()
    assert trials(home) == []


def test_a_trial_counts_even_where_a_newer_checkpoint_has_shaped_the_mix(home: Home) -> None:
    home.add_record(home.base_id(), "probe", knowing(10))
    first = taught(home, 14, drawn("mixed"))
    second = taught(home, 18, drawn("adaptive"))
    home.bus(CURRICULUM).sweep()
    assert {t.checkpoint_id: (t.arm, t.gains) for t in trials(home)} == {first: ("mixed", 4), second: ("adaptive", 4)}
    assert home.verdicts("curriculum")[first] == "superseded"


def test_a_stretch_without_tokens_is_no_trial(home: Home) -> None:
    """The prior system divided by a difference of steps that could be 0."""
    home.add_record(home.base_id(), "probe", knowing(10))
    checkpoint = taught(home, 14, drawn("mixed"))
    with home.ledger.write() as tx:
        tx.session.get_one(CheckpointRow, checkpoint).tokens = 0
    home.bus(CURRICULUM).sweep()
    assert trials(home) == []
    assert home.verdicts("curriculum")[checkpoint] == "changed"

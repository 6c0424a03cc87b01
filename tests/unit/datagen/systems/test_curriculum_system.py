from __future__ import annotations

from datagen.systems.curriculum import SYSTEM as CURRICULUM
from miner.systems.correction import SYSTEM as CORRECTION
from miner.systems.diversity import SYSTEM as DIVERSITY
from ratchet.events.catalogue import CurriculumChanged
from ratchet.ledger.tables import Curriculum
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from ratchet.testing.home import Home


def published(home: Home) -> list[Curriculum]:
    with home.ledger.read() as session:
        return list(session.query(Curriculum).order_by(Curriculum.id))


def weights(row: Curriculum) -> dict[str, float]:
    return {f"{share['family']}/{share['level']}": share["weight"] for share in row.mix["shares"]}


def test_a_new_mix_is_published_with_its_reason(home: Home) -> None:
    checkpoint = home.add_checkpoint()
    home.add_record(checkpoint, "probe", lambda item: item.family == "reverse" and item.level == 1)
    (event,) = home.bus(CURRICULUM).sweep()
    (row,) = published(home)
    assert isinstance(event, CurriculumChanged)
    assert event.curriculum_id == row.id
    assert row.reason.startswith("mastered: reverse 1; mix: ")
    assert home.verdicts("curriculum") == {checkpoint: "changed"}


def test_what_says_nothing_new_changes_nothing(home: Home) -> None:
    for _ in range(2):
        home.add_record(home.add_checkpoint(), "probe", lambda _item: False)
        home.bus(CURRICULUM).sweep()
    assert list(home.verdicts("curriculum").values()) == ["changed", "unchanged"]
    assert len(published(home)) == 1


def test_an_older_record_does_not_turn_the_mix_back(home: Home) -> None:
    old, new = home.add_checkpoint(), home.add_checkpoint()
    home.add_record(old, "probe", lambda _item: False)
    home.add_record(new, "probe", lambda item: item.level == 1)
    home.bus(CURRICULUM).sweep()
    assert home.verdicts("curriculum") == {new: "changed", old: "superseded"}


def test_the_base_models_record_shapes_the_first_mix(home: Home) -> None:
    home.add_record(home.base_id(), "probe", lambda _item: False)
    home.bus(CURRICULUM).sweep()
    assert home.verdicts("curriculum") == {home.base_id(): "changed"}


def test_a_gap_in_what_was_generated_shifts_the_mix_and_lessons_do_not_hide_it(home: Home) -> None:
    home.add_record(home.add_checkpoint(), "probe", lambda _item: False)
    bus = home.bus(CORRECTION, DIVERSITY, CURRICULUM)
    bus.sweep()
    before = weights(published(home)[-1])
    reverses = [to_example(registry.get("reverse").generate(1, seed), "generation") for seed in range(40)]
    home.add_batch(reverses, provenance={"mix": before, "exhausted": ["reverse/2"]})
    bus.sweep()
    after = weights(published(home)[-1])
    assert after["chain_sum/1"] > before["chain_sum/1"]
    assert after["reverse/2"] <= home.settings.curriculum.exhausted_cap
    lessons = [to_example(registry.get("reverse").generate(1, seed), "correction") for seed in range(50, 60)]
    home.add_batch(lessons, "correction")
    bus.sweep()
    assert weights(published(home)[-1]) == after

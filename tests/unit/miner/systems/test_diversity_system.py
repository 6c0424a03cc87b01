from __future__ import annotations

from pathlib import Path
from random import Random

from miner.systems.correction import SYSTEM as CORRECTION
from miner.systems.diversity import SYSTEM as DIVERSITY
from ratchet.data.example import Example
from ratchet.ledger.tables import BatchRow, CoverageRow
from ratchet.tasks import registry
from ratchet.tasks.family import to_example

from tests.support.home import Home, small_home


def test_every_queued_batch_is_measured_against_the_mix_it_was_made_for(home: Home) -> None:
    rows = [to_example(registry.get("reverse").generate(2, seed), "generation") for seed in range(20)]
    batch_id = home.add_batch(rows, provenance={"mix": {"reverse/2": 0.5, "chain_sum/1": 0.5}})
    heard = home.bus(CORRECTION, DIVERSITY).sweep()
    assert [event.name for event in heard] == ["batch.queued", "coverage.measured"]
    with home.ledger.read() as session:
        numbers = session.get_one(CoverageRow, batch_id).numbers
        queued = session.get_one(BatchRow, batch_id).examples
    assert numbers["rows"] == queued
    assert numbers["novelty"] == 1.0
    assert {(cell["family"], cell["level"]): cell["gap"] for cell in numbers["cells"]} == {
        ("chain_sum", 1): 1.0,
        ("reverse", 2): 0.0,
    }


def test_a_rejected_batch_is_not_measured(home: Home) -> None:
    home.add_batch(list(home.suite_items("eval")[:3]))
    home.bus(CORRECTION, DIVERSITY).sweep()
    assert home.verdicts("diversity") == {}


def story(seed: int, words: int = 120) -> str:
    random = Random(seed)
    return " ".join("".join(random.choices("abcdefgh", k=4)) for _ in range(words))


def texts(folder: Path, **changed: float) -> dict[str, int]:
    """The numbers of a second batch with two texts: one from the first batch, and one that differs by a word."""
    with small_home(folder, diversity=changed, hyperparams={"max_length": 1024}) as home:
        first = [Example.ask(story(seed), "yes") for seed in range(3)]
        near = [*story(1).split()[:-1], "other"]
        for rows in (first, [Example.ask(story(0), "yes"), Example.ask(" ".join(near), "yes")]):
            batch_id = home.add_batch(rows, "user")
            home.bus(CORRECTION, DIVERSITY).sweep()
        with home.ledger.read() as session:
            told: dict[str, int] = session.get_one(CoverageRow, batch_id).numbers["texts"]
            return told


def test_nearness_and_history_follow_the_settings(tmp_path: Path) -> None:
    assert texts(tmp_path / "strict", near=1.0)["known"] == 1
    assert texts(tmp_path / "loose", near=0.7)["known"] == 2
    assert texts(tmp_path / "forgetful", near=0.7, history_examples=0)["known"] == 0

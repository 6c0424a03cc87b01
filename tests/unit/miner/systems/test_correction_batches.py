"""Correction batches of mined items: what they hold, and what came of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from miner.correction_batch import CLASS_SHARE, SAMPLED_EXAMPLES, SAMPLING_TEMPERATURE
from miner.correction_impact import EVALUATIONS, find_measurable
from miner.model_children import SamplingSpec
from miner.systems.correction import SYSTEM as CORRECTION
from miner.systems.mining import SYSTEM as MINING
from ratchet.data.example import Example
from ratchet.evaluation.load_evaluation import _cached
from ratchet.ledger.correction_backoff import PAUSE, classes_in_backoff
from ratchet.ledger.tables import BatchRow, EvaluationRow, ImpactRow, VerdictRow

from tests.support.examples import made
from tests.support.home import Home, merged, small_home

from .by_heart import WATCHED, ByHeart, corrected, half_right


def test_a_batch_holds_sampled_answers_that_the_grader_accepts_and_judgements_of_mistakes(watched: Home) -> None:
    model = ByHeart()
    _, batch, rows = corrected(watched, model)
    judged = [row for row in rows if row.family == "judge"]
    assert {row.answer for row in judged} == {"right", "wrong"}
    assert batch.quarantined == 0
    (spec,) = model.sampled
    assert all(item.answer == item.metadata["gold"] for item in spec.items)
    assert "wrong" not in {row.answer for row in rows if row.family == "reverse"}
    assert watched.dead() == []


def test_the_effect_of_a_trained_batch_is_measured_at_the_next_evaluations(watched: Home) -> None:
    mined_from, batch, _ = corrected(watched, ByHeart())
    with watched.ledger.write() as tx:
        tx.session.get_one(BatchRow, batch.id).state = "trained"
    after = watched.add_checkpoint(batch.id)
    watched.add_record(after, "probe", lambda _item: True)
    watched.bus(CORRECTION, children=ByHeart()).sweep()
    assert watched.verdicts("correction")[f"{batch.id}/{after}"] == "measured"
    with watched.ledger.read() as session:
        rows = session.query(ImpactRow).all()
        classes = set(session.get_one(BatchRow, batch.id).provenance["classes"])
    assert {row.error_class for row in rows} == classes
    assert {row.baseline_id for row in rows} == {mined_from}
    by_class = {row.error_class: row for row in rows}
    assert by_class["reverse:length"].gains > 0
    assert by_class["reverse:length"].after == 0
    assert by_class["reverse:length"].low > 0


SUMS, OTHERS = "chain_sum:operand", "reverse:length"


def measured_without_gain(home: Home, *classes: str) -> None:
    """One trained correction batch for each class, oldest first, that did not help it."""
    with home.ledger.write() as tx:
        for place, name in enumerate(classes):
            row = BatchRow(
                id=f"old{place}",
                origin="correction",
                state="trained",
                priority=0,
                submitted_artifact="x",
                submitted_examples=1,
                provenance={"classes": {name: 5}},
                submitted_at=float(place),
            )
            tx.session.add(row)
            tx.session.add(
                ImpactRow(
                    batch_id=row.id,
                    checkpoint_id="c",
                    error_class=name,
                    baseline_id="b",
                    items=20,
                    before=5,
                    after=6,
                    gains=1,
                    losses=2,
                    low=-0.2,
                    high=0.1,
                    created_at=float(place),
                )
            )


@pytest.mark.parametrize(
    ("classes", "is_backed_off"),
    [([SUMS] * 2, False), ([SUMS] * 3, True), ([SUMS] * 3 + [OTHERS], True), ([SUMS] * 3 + [OTHERS] * PAUSE, False)],
)
def test_a_class_without_improvement_is_backed_off(watched: Home, classes: list[str], is_backed_off: bool) -> None:
    measured_without_gain(watched, *classes)
    _, batch, _ = corrected(watched, ByHeart(), [f"old{place}" for place in range(len(classes))])
    assert (SUMS not in batch.provenance["classes"]) == is_backed_off


def test_a_class_is_backed_off_by_the_measurement_that_completes_its_failures(watched: Home) -> None:
    measured_without_gain(watched, OTHERS, OTHERS)
    _, batch, _ = corrected(watched, ByHeart(), ["old0", "old1"])
    with watched.ledger.write() as tx:
        tx.session.get_one(BatchRow, batch.id).state = "trained"
    with watched.ledger.read() as session:
        assert classes_in_backoff(session) == {}
    after = watched.add_checkpoint(batch.id)
    still_wrong = {item.id for item in watched.suite_items("probe")[::2]}
    watched.add_record(after, "probe", lambda item: item.id not in still_wrong)
    watched.bus(CORRECTION, children=ByHeart()).sweep()
    with watched.ledger.read() as session:
        measured = session.query(VerdictRow).where(VerdictRow.subject_id == f"{batch.id}/{after}").one()
        assert list(classes_in_backoff(session)) == list(measured.numbers["backed_off"]) == [OTHERS]


def corrections_of(folder: Path, **sections: dict[str, float]) -> tuple[BatchRow, list[Example], list[SamplingSpec]]:
    """The correction batch of a story, its rows, and what was sampled for it, with these settings changed."""
    model = ByHeart()
    with small_home(folder, **merged(WATCHED, sections)) as home:
        _, batch, rows = corrected(home, model)
    return batch, rows, model.sampled


def test_sampling_follows_the_settings(tmp_path: Path) -> None:
    _, _, (spec,) = corrections_of(tmp_path / "some", correction={"samples": 3})
    assert (spec.samples, spec.model.decoding.temperature) == (3, SAMPLING_TEMPERATURE)
    assert 0 < len(spec.items) <= SAMPLED_EXAMPLES
    assert corrections_of(tmp_path / "none", correction={"samples": 0})[2] == []


def test_the_make_up_of_a_correction_batch_follows_the_settings(tmp_path: Path) -> None:
    usual, rows, _ = corrections_of(tmp_path / "usual")
    counts = usual.provenance["counts"]
    assert any(row.family == "judge" for row in rows)
    _, unjudged, _ = corrections_of(tmp_path / "unjudged", correction={"judged_share": 0.0})
    assert not any(row.family == "judge" for row in unjudged)
    pure, _, _ = corrections_of(tmp_path / "pure", queue={"correction_share": 0.5})
    of_it = pure.provenance["counts"]
    assert (
        of_it["corrections"] / (of_it["corrections"] + of_it["replay"])
        > 0.3
        > counts["corrections"] / sum(counts.values())
    )


def test_a_batch_has_at_most_its_number_of_correction_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miner.correction_batch.MOST_EXAMPLES", 10)
    batch, _, _ = corrections_of(tmp_path / "few")
    assert batch.provenance["counts"]["corrections"] == 10


def test_no_class_has_more_than_its_share_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miner.correction_batch.MOST_EXAMPLES", 20)
    batch, _, _ = corrections_of(tmp_path / "told", correction={"judged_share": 0.0})
    assert max(batch.provenance["classes"].values()) <= CLASS_SHARE * 20 < 20


@pytest.mark.parametrize("most", [1, 4])
def test_one_item_gives_at_most_its_number_of_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("miner.correction_batch.EXAMPLES_PER_ITEM", most)
    monkeypatch.setattr("miner.systems.mining.SET_ITEMS", 3)
    batch, _, _ = corrections_of(tmp_path / "few", correction={"judged_share": 0.0})
    assert batch.provenance["counts"]["corrections"] == 3 * most


@pytest.mark.parametrize("least", [1, 2])
def test_generated_batches_lie_between_two_corrections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int
) -> None:
    monkeypatch.setattr("miner.correction_batch.BATCHES_BETWEEN", least)
    with small_home(tmp_path / "apart", **WATCHED) as home:
        home.add_batch(made("reverse", 2, 20))
        checkpoint = half_right(home)
        home.bus(MINING, CORRECTION, children=ByHeart()).sweep()
        assert (home.verdicts("correction")[checkpoint] == "not yet") == (least > 1)


def test_without_the_earlier_record_no_impact_is_measured(tmp_path: Path) -> None:
    with small_home(tmp_path / "lost", **WATCHED) as home:
        checkpoint, batch, _ = corrected(home, ByHeart())
        with home.ledger.write() as tx:
            tx.session.get_one(BatchRow, batch.id).state = "trained"
            record = tx.session.query(EvaluationRow).where(EvaluationRow.checkpoint_id == checkpoint).one()
            home.artifacts.delete(record.artifact)
        _cached.cache_clear()
        after = home.add_checkpoint(batch.id)
        home.add_record(after, "probe", lambda _item: True)
        home.bus(CORRECTION, children=ByHeart()).sweep()
        assert home.verdicts("correction")[f"{batch.id}/{after}"] == "not comparable"


def test_the_impact_is_measured_at_the_first_evaluations_after_a_batch(tmp_path: Path) -> None:
    with small_home(tmp_path / "told", **WATCHED) as home:
        _, batch, _ = corrected(home, ByHeart())
        with home.ledger.write() as tx:
            tx.session.get_one(BatchRow, batch.id).state = "trained"
        for batch_id in (batch.id, *[None] * EVALUATIONS):
            home.add_record(home.add_checkpoint(batch_id), "probe", lambda _item: True)
        with home.ledger.read() as session:
            assert len(find_measurable(session, home.settings)) == EVALUATIONS

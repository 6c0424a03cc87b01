"""Mining and what follows from it, around model children that answer by heart."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from miner.answered import Answered
from miner.impact_lane import find_measurable
from miner.mined_set import read_mined
from miner.mining import MinedItem
from miner.mining_child import Forbidden, MiningResult, MiningSpec
from miner.sampling_child import SamplingResult, SamplingSpec
from miner.search import search
from miner.systems.correction import SYSTEM as CORRECTION
from miner.systems.mining import SYSTEM as MINING
from ratchet.data.example import Example
from ratchet.evaluation.standing import held_out
from ratchet.ledger.tables import Batch, Deployment, Impact, Mined
from ratchet.tasks.graders import item_key
from ratchet.testing.examples import made
from ratchet.testing.home import Home, merged, small_home

WATCHED = {"mining": {"search_items": 60, "retest_items": 20}, "correction": {"samples": 2, "judged_share": 0.2}}


@dataclass
class ByHeart:
    """Stands in for the model: it knows no sum of three terms, and samples every answer with a word before it."""

    orders: list[MiningSpec] = field(default_factory=list)
    sampled: list[SamplingSpec] = field(default_factory=list)

    def run(
        self, target: str, spec: dict[str, Any], *, on_progress: Callable[[dict[str, Any]], None], **_limits: Any
    ) -> dict[str, Any]:
        on_progress({"note": "by heart"})
        if target == "miner.sampling_child:sample_answers":
            return self._sample(SamplingSpec.model_validate(spec))
        assert target == "miner.mining_child:mine_checkpoint"
        told = MiningSpec.model_validate(spec)
        self.orders.append(told)
        state = search(
            told.cells,
            told.answered,
            lambda items: [self._answer(item) for item in items],
            budget=told.budget,
            round_items=told.round_items,
            forbidden=Forbidden(told.held_out, told.known),
            limits=told.limits,
            seed=told.seed,
        )
        return MiningResult(
            found=tuple(state.found),
            yields={name: (each.weak, each.asked) for name, each in state.yields.items()},
            retest=tuple(self._answer(item).is_right for item in told.retest),
            control=tuple(self._answer(item).is_right for item in told.control),
        ).model_dump(mode="json")

    def _answer(self, item: Example) -> Answered:
        is_right = item.family == "reverse" or item.level == 1
        return Answered(
            example=item,
            key=item_key(item),
            answer="1+1=3",
            error=None if is_right else "operand",
            mean_probability=0.9,
            least_probability=0.9,
        )

    def _sample(self, told: SamplingSpec) -> dict[str, Any]:
        self.sampled.append(told)
        kept = tuple("wrong" if place % 2 else f" {item.metadata['gold']}" for place, item in enumerate(told.items))
        return SamplingResult(kept=kept, asked=2 * len(kept), verified=len(kept)).model_dump(mode="json")


@pytest.fixture
def watched(tmp_path: Path) -> Any:
    with small_home(tmp_path / "watched", **WATCHED) as home:
        yield home


def half_right(home: Home, offset: int = 0) -> str:
    """A checkpoint that gets every other probe item wrong."""
    checkpoint = home.add_checkpoint()
    wrong = {item.id for item in home.suite_items("probe")[offset::2]}
    home.add_record(checkpoint, "probe", lambda item: item.id not in wrong)
    return checkpoint


def mined_rows(home: Home, checkpoint: str) -> tuple[Mined, list[MinedItem]]:
    with home.ledger.read() as session:
        row = session.get_one(Mined, checkpoint)
    return row, read_mined(home.artifacts, str(row.artifact))


def test_fresh_items_near_the_frontier_are_mined_with_their_origin(watched: Home) -> None:
    model = ByHeart()
    checkpoint = half_right(watched)
    watched.bus(MINING, children=model).sweep()
    row, items = mined_rows(watched, checkpoint)
    assert row.numbers["asked"] == 60
    assert set(row.numbers["by_way"]) >= {"probe", "fresh"}
    fresh = [item for item in items if item.way != "probe"]
    assert {item.cell for item in fresh} == {("chain_sum", 2)}
    assert not [item.key for item in fresh if item.key in held_out(watched.settings.suites)]
    assert watched.dead() == []


def test_the_next_checkpoint_is_asked_the_set_again_beside_random_items_and_not_searched_there(watched: Home) -> None:
    model = ByHeart()
    half_right(watched)
    watched.bus(MINING, children=model).sweep()
    second = half_right(watched, 1)
    watched.bus(MINING, children=model).sweep()
    row, _ = mined_rows(watched, second)
    told = row.numbers["follow_up"]
    assert (told["mined"], told["random"]) == (20, 20)
    assert told["mined_failed"] / 20 <= 1.0
    first_keys = model.orders[1].known
    assert {item_key(item) for item in model.orders[1].retest} <= first_keys
    assert not first_keys & {item_key(item) for item in model.orders[1].control}
    assert model.orders[1].before == {name: tuple(pair) for name, pair in model_yields(watched).items()}


def model_yields(home: Home) -> dict[str, Any]:
    with home.ledger.read() as session:
        first = session.query(Mined).order_by(Mined.created_at).first()
        assert first is not None
        yields: dict[str, Any] = first.numbers["yields"]
        return yields


def test_what_an_earlier_champion_had_right_is_forgotten(home: Home) -> None:
    champion = home.add_checkpoint()
    home.add_record(champion, "probe", lambda _item: True)
    with home.ledger.write() as tx:
        tx.session.add(
            Deployment(
                action="deploy",
                checkpoint_id=champion,
                previous_id=None,
                reason="",
                numbers={},
                token=1,
                created_at=1.0,
            )
        )
    checkpoint = half_right(home)
    home.bus(MINING).sweep()
    _, items = mined_rows(home, checkpoint)
    assert {item.category for item in items} == {"forgotten"}


def test_without_a_level_near_the_frontier_no_model_is_loaded(watched: Home) -> None:
    model = ByHeart()
    checkpoint = watched.add_checkpoint()
    watched.add_record(checkpoint, "probe", lambda _item: True)
    watched.bus(MINING, children=model).sweep()
    assert model.orders == []
    assert watched.verdicts("mining") == {checkpoint: "nothing mined"}


def corrected(home: Home, model: ByHeart, before: Collection[str] = ()) -> tuple[str, Batch, list[Example]]:
    """A checkpoint that was mined, and the correction batch made of it; ``before`` are earlier ones."""
    bus = home.bus(MINING, CORRECTION, children=model)
    home.add_batch([row for row in made("reverse", 2, 150) if item_key(row) not in held_out(home.settings.suites)])
    bus.sweep()
    checkpoint = half_right(home)
    bus.sweep()
    with home.ledger.read() as session:
        batch = session.query(Batch).where(Batch.origin == "correction", Batch.id.not_in(before)).one()
    rows = [Example.model_validate_json(line) for line in home.artifacts.open_lines(str(batch.artifact))]
    return checkpoint, batch, rows


def test_lessons_hold_sampled_answers_that_the_grader_accepts_and_judgements_of_mistakes(watched: Home) -> None:
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
        tx.session.get_one(Batch, batch.id).state = "trained"
    after = watched.add_checkpoint(batch.id)
    watched.add_record(after, "probe", lambda _item: True)
    watched.bus(CORRECTION, children=ByHeart()).sweep()
    assert watched.verdicts("correction")[f"{batch.id}/{after}"] == "measured"
    with watched.ledger.read() as session:
        rows = session.query(Impact).all()
        classes = set(session.get_one(Batch, batch.id).provenance["classes"])
    assert {row.error_class for row in rows} == classes
    assert {row.baseline_id for row in rows} == {mined_from}
    by_class = {row.error_class: row for row in rows}
    assert by_class["reverse:length"].gains > 0
    assert by_class["reverse:length"].after == 0
    assert by_class["reverse:length"].low > 0


SUMS, OTHERS = "chain_sum:operand", "reverse:length"


def taught_in_vain(home: Home, *classes: str) -> None:
    """One trained correction batch for each class, oldest first, that did not help it."""
    with home.ledger.write() as tx:
        for place, name in enumerate(classes):
            row = Batch(
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
                Impact(
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
    ("changed", "classes", "is_stopped"),
    [
        ({}, [SUMS] * 3, True),
        ({"patience": 4}, [SUMS] * 3, False),
        ({}, [SUMS, SUMS, SUMS, OTHERS], True),
        ({"pause": 1}, [SUMS, SUMS, SUMS, OTHERS], False),
    ],
)
def test_a_class_that_batch_after_batch_did_not_help_gets_no_more_lessons_for_a_while(
    tmp_path: Path, changed: dict[str, int], classes: list[str], is_stopped: bool
) -> None:
    with small_home(tmp_path / "told", **merged(WATCHED, {"correction": changed})) as home:
        taught_in_vain(home, *classes)
        _, batch, _ = corrected(home, ByHeart(), ["old0", "old1", "old2", "old3"])
    assert (SUMS not in batch.provenance["classes"]) == is_stopped


def asked_to_search(tmp_path: Path, **changed: float) -> tuple[list[MiningSpec], list[MinedItem]]:
    """What the model is told and what is mined, with these settings of mining."""
    model = ByHeart()
    with small_home(tmp_path / "told", mining={**WATCHED["mining"], **changed}) as home:
        checkpoint = half_right(home)
        home.bus(MINING, children=model).sweep()
        row, _ = mined_rows(home, checkpoint) if model.orders else (None, [])
        return model.orders, read_mined(home.artifacts, str(row.artifact)) if row else []


@pytest.mark.parametrize(
    "changed",
    [{"search_items": 0}, {"frontier_low": 0.7}, {"frontier_high": 0.3}],
    ids=["search_items", "frontier_low", "frontier_high"],
)
def test_which_levels_are_searched_is_set(tmp_path: Path, changed: dict[str, float]) -> None:
    assert asked_to_search(tmp_path, **changed)[0] == []


def test_the_search_has_its_budget_and_its_rounds_from_the_settings(tmp_path: Path) -> None:
    (order,), found = asked_to_search(tmp_path, search_items=7, round_items=3)
    assert (order.budget, order.round_items) == (7, 3)
    assert sum(item.way != "probe" for item in found) <= 7


def test_what_counts_as_sure_is_set(tmp_path: Path) -> None:
    """Every answer of this model has a probability of 0.9."""
    found = [asked_to_search(tmp_path / str(sure), sure=sure)[1] for sure in (0.9, 0.94)]
    fresh = [{item.category for item in items if item.way != "probe"} for items in found]
    assert ["overconfident_wrong" in categories for categories in fresh] == [True, False]


def test_from_which_probability_on_a_right_answer_is_no_weakness_is_set(tmp_path: Path) -> None:
    found = [asked_to_search(tmp_path / str(unsure), unsure=unsure)[1] for unsure in (0.5, 0.95)]
    assert ["low_margin" in {item.category for item in items} for items in found] == [False, True]


def test_how_much_of_the_set_before_is_known_and_asked_again_is_set(tmp_path: Path) -> None:
    def second_order(**changed: int) -> MiningSpec:
        model = ByHeart()
        name = "-".join(changed) or "plain"
        with small_home(tmp_path / name, mining={**WATCHED["mining"], **changed}) as home:
            for offset in (0, 1):
                half_right(home, offset)
                home.bus(MINING, children=model).sweep()
        return model.orders[1]

    usual = second_order()
    assert len(usual.retest) == WATCHED["mining"]["retest_items"] < len(usual.known)
    assert len(second_order(retest_items=3).retest) == 3
    assert second_order(remembered=0).known == frozenset()


def test_how_many_weak_items_are_handed_on_is_set(tmp_path: Path) -> None:
    with small_home(tmp_path / "few", queue={"mined_items": 3}) as home:
        checkpoint = half_right(home)
        home.bus(MINING).sweep()
        assert len(mined_rows(home, checkpoint)[1]) == 3


def lessons(folder: Path, **sections: dict[str, float]) -> tuple[Batch, list[Example], list[SamplingSpec]]:
    """The correction batch of a story, its rows, and what was sampled for it, with these settings changed."""
    model = ByHeart()
    with small_home(folder, **merged(WATCHED, sections)) as home:
        _, batch, rows = corrected(home, model)
    return batch, rows, model.sampled


def test_how_answers_are_sampled_is_set(tmp_path: Path) -> None:
    told = {"samples": 3, "sampled_lessons": 4, "temperature": 0.6}
    _, _, (spec,) = lessons(tmp_path / "some", correction=told)
    assert (spec.samples, len(spec.items), spec.model.decoding.temperature) == (3, 4, 0.6)
    assert lessons(tmp_path / "none", correction={"samples": 0})[2] == []


def test_what_a_correction_batch_is_made_of_is_set(tmp_path: Path) -> None:
    usual, rows, _ = lessons(tmp_path / "usual")
    counts = usual.provenance["counts"]
    assert any(row.family == "judge" for row in rows)
    _, unjudged, _ = lessons(tmp_path / "unjudged", correction={"judged_share": 0.0})
    assert not any(row.family == "judge" for row in unjudged)
    fewer, _, _ = lessons(tmp_path / "fewer", queue={"correction_examples": 10})
    assert fewer.provenance["counts"]["lessons"] == 10 < counts["lessons"]
    pure, _, _ = lessons(tmp_path / "pure", queue={"correction_share": 0.5})
    of_it = pure.provenance["counts"]
    assert of_it["lessons"] / (of_it["lessons"] + of_it["replay"]) > 0.3 > counts["lessons"] / sum(counts.values())


def test_how_much_of_a_batch_one_class_may_have_is_set(tmp_path: Path) -> None:
    def largest(class_share: float) -> int:
        told = {"judged_share": 0.0, "class_share": class_share}
        batch, _, _ = lessons(tmp_path / str(class_share), correction=told, queue={"correction_examples": 20})
        return max(batch.provenance["classes"].values())

    assert largest(1.0) > largest(0.2) == 4


def test_how_many_lessons_one_item_gives_is_set(tmp_path: Path) -> None:
    few = {"queue": {"correction_relatives": 1, "mined_items": 3}, "correction": {"judged_share": 0.0}}
    many = merged(few, {"queue": {"correction_relatives": 4}})
    made_of = [lessons(tmp_path / name, **told)[0] for name, told in (("few", few), ("many", many))]
    assert [batch.provenance["counts"]["lessons"] for batch in made_of] == [3, 12]


@pytest.mark.parametrize("correction_spacing", [1, 2])
def test_how_many_batches_lie_between_corrections_is_set(tmp_path: Path, correction_spacing: int) -> None:
    told = merged(WATCHED, {"queue": {"correction_spacing": correction_spacing}})
    with small_home(tmp_path / "apart", **told) as home:
        home.add_batch(made("reverse", 2, 20))
        checkpoint = half_right(home)
        home.bus(MINING, CORRECTION, children=ByHeart()).sweep()
        assert (home.verdicts("correction")[checkpoint] == "not yet") == (correction_spacing > 1)


@pytest.mark.parametrize("evaluations", [1, 2])
def test_at_how_many_checkpoints_the_effect_is_measured_is_set(tmp_path: Path, evaluations: int) -> None:
    told = merged(WATCHED, {"correction": {"impact_evaluations": evaluations}})
    with small_home(tmp_path / "told", **told) as home:
        _, batch, _ = corrected(home, ByHeart())
        with home.ledger.write() as tx:
            tx.session.get_one(Batch, batch.id).state = "trained"
        for batch_id in (batch.id, None, None):
            home.add_record(home.add_checkpoint(batch_id), "probe", lambda _item: True)
        with home.ledger.read() as session:
            assert len(find_measurable(session, home.settings)) == evaluations

"""Mining and what follows from it, around model children that answer by heart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from miner.answered import Answered
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
from ratchet.testing.home import Home, small_home

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


def corrected(home: Home, model: ByHeart) -> tuple[str, Batch, list[Example]]:
    bus = home.bus(MINING, CORRECTION, children=model)
    home.add_batch([row for row in made("reverse", 2, 150) if item_key(row) not in held_out(home.settings.suites)])
    bus.sweep()
    checkpoint = half_right(home)
    bus.sweep()
    with home.ledger.read() as session:
        batch = session.query(Batch).where(Batch.origin == "correction").one()
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


def test_a_class_that_batch_after_batch_did_not_help_gets_no_more_lessons(watched: Home) -> None:
    _, batch, _ = corrected(watched, ByHeart())
    with watched.ledger.write() as tx:
        for place in range(3):
            row = Batch(
                id=f"old{place}",
                origin="correction",
                state="trained",
                priority=0,
                submitted_artifact="x",
                submitted_examples=1,
                provenance={"classes": {"chain_sum:operand": 5}},
                submitted_at=float(place),
            )
            tx.session.add(row)
            tx.session.add(
                Impact(
                    batch_id=row.id,
                    checkpoint_id="c",
                    error_class="chain_sum:operand",
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
    watched.add_batch(made("chain_sum", 2, 50, first=1_000))
    bus = watched.bus(MINING, CORRECTION, children=ByHeart())
    bus.sweep()
    newest = half_right(watched, 1)
    bus.sweep()
    assert watched.verdicts("correction")[newest] == "submitted"
    with watched.ledger.read() as session:
        made_now = (
            session.query(Batch)
            .where(Batch.origin == "correction", Batch.id.not_in([batch.id]))
            .order_by(Batch.submitted_at.desc())
        )
        classes = next(iter(made_now)).provenance["classes"]
    assert "chain_sum:operand" not in classes

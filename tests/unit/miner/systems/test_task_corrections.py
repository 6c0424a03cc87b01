"""Mining and correction of the rows that a user has given, around model children that answer by heart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from datagen.systems.curriculum import SYSTEM as CURRICULUM
from datagen.systems.generation import SYSTEM as GENERATION
from miner.mined_items import GradedAnswer, hard_items, read_mined
from miner.model_children import MiningResult, MiningSpec, SamplingResult, SamplingSpec, weak_rows
from miner.systems.correction import SYSTEM as CORRECTION
from miner.systems.mining import SYSTEM as MINING
from ratchet.data.example import Example
from ratchet.ledger.tables import BatchRow, CheckpointRow, ImpactRow, MinedRow, TaskRow
from ratchet.tasks.graders import grade_example, item_key
from ratchet.user_tasks.add import Choice
from ratchet.user_tasks.supply import CORRECTION_PATIENCE, PATIENCE

from tests.support.home import Home
from tests.support.rows import verdict
from tests.support.user_tasks import add_task_record, home_of_tasks

BABI = "babi_qa1_100.jsonl"
ASKED = {
    "mining": {"search_items": 20},
    "correction": {"samples": 4, "judged_share": 0.0},
    "queue": {"low_water": 300, "high_water": 3_000, "batch_examples": 1_000},
}


@dataclass
class WhereIsMary:
    """A fake model: it answers every other row wrong, and a sampled one in its own words, now and then rightly."""

    mined: list[MiningSpec] = field(default_factory=list)
    sampled: list[SamplingSpec] = field(default_factory=list)

    def run(
        self, target: str, spec: dict[str, Any], *, on_progress: Callable[[dict[str, Any]], None], **_limits: Any
    ) -> dict[str, Any]:
        on_progress({"note": "by heart"})
        if target == "miner.model_children:sample_answers":
            self.sampled.append(SamplingSpec.model_validate(spec))
            return self._sample(self.sampled[-1])
        self.mined.append(MiningSpec.model_validate(spec))
        rows = self.mined[-1].rows
        graded = [row for row in rows if row.metadata.get("metric") is None]
        free = [row for row in rows if row.metadata.get("metric") is not None]
        weak = weak_rows([self._answer(row, place % 2 == 0) for place, row in enumerate(graded)])
        hard = hard_items(free, [float(place) for place in range(len(free))])
        return MiningResult(weak_rows=(*weak, *hard)).model_dump(mode="json")

    def _answer(self, row: Example, is_right: bool) -> GradedAnswer:
        error = None if is_right else "wrong"
        told = {"answer": "garden", "error": error, "mean_probability": 0.6, "least_probability": 0.6}
        return GradedAnswer(example=row, key=item_key(row), **told)

    def _sample(self, told: SamplingSpec) -> dict[str, Any]:
        """The first row is never answered right, the second always, the others half of the time."""
        right = []
        for place, item in enumerate(told.items):
            own = f"{item.metadata.get('gold', item.answer)}."
            right.append(((), (own,) * told.samples)[place] if place < 2 else (own,) * (told.samples // 2))
        kept = tuple(texts[0] if texts else None for texts in right)
        found = SamplingResult(kept=kept, asked=4 * len(kept), verified=sum(map(len, right)), right=tuple(right))
        return found.model_dump(mode="json")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Home]:
    with home_of_tasks(tmp_path / "own", {BABI: Choice(task="babi")}, **ASKED) as home:
        yield home


def checkpoint_after(home: Home, share_right: float = 0.3, loss: float = 1.0) -> str:
    """The queued batch is trained, and the checkpoint after it measured on the probe."""
    with home.ledger.write() as tx:
        batch = tx.session.query(BatchRow).filter(BatchRow.state == "queued").order_by(BatchRow.priority).first()
        assert batch is not None
        batch.state = "trained"
    checkpoint = home.add_checkpoint(batch.id)
    keys = sorted(str(item.metadata["key"]) for item in home.suite_items("probe"))
    add_task_record(home, checkpoint, set(keys[: round(share_right * len(keys))]).__contains__, loss)
    with home.ledger.write() as tx:
        tx.session.add(verdict("testing", "checkpoint", checkpoint, "tested"))
    return checkpoint


def turn(home: Home, model: WhereIsMary) -> None:
    home.bus(CURRICULUM, MINING, CORRECTION, GENERATION, children=model).sweep()
    assert home.dead() == []


def corrections(home: Home) -> list[BatchRow]:
    with home.ledger.read() as session:
        return session.query(BatchRow).filter(BatchRow.origin == "correction").order_by(BatchRow.submitted_at).all()


def rows_of(home: Home, batch: BatchRow) -> list[Example]:
    return [Example.model_validate_json(line) for line in home.artifacts.open_lines(batch.submitted_artifact)]


def corrected(home: Home, model: WhereIsMary) -> BatchRow:
    turn(home, model)
    checkpoint_after(home)
    turn(home, model)
    (batch,) = corrections(home)
    return batch


def test_training_rows_are_asked_within_the_budget_and_no_held_out_one(own: Home) -> None:
    model = WhereIsMary()
    corrected(own, model)
    (spec,) = model.mined
    assert len(spec.rows) == 20
    held = {item.question for pool in ("probe", "eval", "confirm") for item in own.suite_items(pool)}
    assert not held & {row.question for row in spec.rows}
    assert {row.family for row in spec.rows} == {"babi"}


def test_weak_training_rows_become_examples_beside_ordinary_rows(own: Home) -> None:
    batch = corrected(own, WhereIsMary())
    made = [row for row in rows_of(own, batch) if "error_class" in row.metadata]
    assert batch.provenance["counts"]["corrections"] == len(made) == 10
    assert batch.provenance["cells"] == ["babi/1"]
    assert batch.provenance["classes"] == {"babi:wrong": 10}
    share = len(made) / len(rows_of(own, batch))
    assert share <= own.settings.queue.correction_share
    assert (batch.state, batch.quarantined) == ("queued", 0)


def test_the_champions_own_right_answers_are_kept_where_it_finds_them_sometimes(own: Home) -> None:
    model = WhereIsMary()
    batch = corrected(own, model)
    (spec,) = model.sampled
    with own.ledger.read() as session:
        assert spec.model.weights == session.get_one(CheckpointRow, own.base_id()).weights
    made = [row for row in rows_of(own, batch) if "error_class" in row.metadata]
    by_key = {row.metadata["parent"]: row for row in made}
    never, always, *sometimes = (item_key(item) for item in spec.items)
    assert "answer_by" not in by_key[never].metadata
    assert by_key[sometimes[0]].metadata["answer_by"] == "rejection sampling"
    assert all(grade_example(row, str(row.answer)).correct for row in made)
    assert [made.index(by_key[key]) for key in (sometimes[0], never, always)] == [0, len(made) - 2, len(made) - 1]


def test_where_no_grader_exists_the_rows_of_largest_loss_are_replayed(tmp_path: Path) -> None:
    with home_of_tasks(tmp_path / "free", {BABI: Choice(task="notes", metric="loss")}, **ASKED) as home:
        model = WhereIsMary()
        batch = corrected(home, model)
        hard = {item_key(row) for row in model.mined[0].rows[-5:]}
        assert {row.metadata["parent"] for row in rows_of(home, batch) if "error_class" in row.metadata} == hard
        assert batch.provenance["classes"] == {"notes:hard": 5}
        assert model.sampled == []
        assert batch.quarantined == 0


def test_held_out_rows_are_mined_for_people_and_never_corrected(own: Home) -> None:
    batch = corrected(own, WhereIsMary())
    with own.ledger.read() as session:
        mined = session.query(MinedRow).order_by(MinedRow.created_at.desc()).first()
        assert mined is not None
    found = Counter(item.found_by for item in read_mined(own.artifacts, str(mined.artifact)))
    assert found["rows"] == 10
    assert found["probe"] > 0
    held = {str(item.metadata["key"]) for item in own.suite_items("probe")}
    assert not held & {item_key(row) for row in rows_of(own, batch)}


def test_the_effect_of_a_correction_is_measured_on_the_tasks_probe_items(own: Home) -> None:
    model = WhereIsMary()
    batch = corrected(own, model)
    checkpoint_after(own, share_right=0.9)
    turn(own, model)
    with own.ledger.read() as session:
        (impact,) = session.query(ImpactRow).all()
    assert (impact.batch_id, impact.error_class) == (batch.id, "babi:wrong")
    assert impact.gains > impact.losses == 0


def test_without_more_passes_corrections_follow_each_other_until_they_no_longer_help(
    own: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("miner.correction_batch.BATCHES_BETWEEN", 2)
    model = WhereIsMary()
    turn(own, model)
    stale = []
    for _ in range(20):
        if not queued(own):
            break
        checkpoint_after(own)
        turn(own, model)
        with own.ledger.read() as session:
            stale.append(session.get_one(TaskRow, "babi").stale)
    turn(own, model)
    with own.ledger.read() as session:
        task = session.get_one(TaskRow, "babi")
    assert task.stale == CORRECTION_PATIENCE
    assert task.state == "used_up"
    after_passes = [place for place, count in enumerate(stale) if count >= PATIENCE]
    assert len(corrections(own)) >= len(after_passes) - 1


def test_without_more_passes_one_correction_is_on_its_way_at_a_time(own: Home) -> None:
    model = WhereIsMary()
    corrected(own, model)
    with own.ledger.write() as tx:
        tx.session.get_one(TaskRow, "babi").stale = PATIENCE
    another = own.add_checkpoint()
    add_task_record(own, another, lambda _key: False, 1.0)
    turn(own, model)
    assert len(corrections(own)) == 1
    assert own.verdicts("correction")[another] == "not yet"


def queued(home: Home) -> int:
    with home.ledger.read() as session:
        return session.query(BatchRow).filter(BatchRow.state == "queued").count()


def test_a_used_up_task_is_not_asked_again(own: Home) -> None:
    model = WhereIsMary()
    turn(own, model)
    with own.ledger.write() as tx:
        tx.session.get_one(TaskRow, "babi").state = "used_up"
    checkpoint_after(own)
    own.bus(MINING, children=model).sweep()
    assert model.mined == []

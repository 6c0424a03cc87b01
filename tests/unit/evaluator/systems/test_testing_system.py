"""The wiring of testing around a child that answers by heart."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from evaluator.systems.regression import SYSTEM as REGRESSION
from evaluator.systems.testing import SYSTEM as TESTING
from ratchet.data.example import Example
from ratchet.errors import ChildFailed
from ratchet.evaluation.answer_suites import SuiteResult, TestingResult, TestingSpec, read_suite
from ratchet.evaluation.load_evaluation import load_evaluation
from ratchet.evaluation.noise_floor import NoiseFloor
from ratchet.evaluation.record import ItemRecord, records_to_lines
from ratchet.ledger.suites import current, evaluation
from ratchet.ledger.tables import CheckpointRow, EvaluationRequestRow, EvaluationRow, SuiteRow, VerdictRow
from ratchet.user_tasks.add import Choice

from tests.support.home import Home, made_up_answer, made_up_key, small_home
from tests.support.user_tasks import DATA, add_rows


@dataclass
class ByHeart:
    """A fake model child: answers every item right, or returns the given result."""

    broken: str | None = None
    answer: str | None = None
    errors: Sequence[str | None] = (None,)
    asked: list[tuple[str, list[str]]] = field(default_factory=list)
    scored: dict[str, bool] = field(default_factory=dict)
    graders: dict[str, str] = field(default_factory=dict)
    noise: NoiseFloor | None = None
    noise_known: dict[str, tuple[tuple[str, str, str], ...] | None] = field(default_factory=dict)

    def run(
        self, target: str, spec: dict[str, Any], *, on_progress: Callable[[dict[str, Any]], None], **_limits: Any
    ) -> dict[str, Any]:
        assert target == "ratchet.evaluation.answer_suites:run_suites"
        told = TestingSpec.model_validate(spec)
        if not told.checkpoint.exists():
            raise ChildFailed(f"{told.checkpoint} is not there")
        self.asked.append((str(told.weights), [suite.name for suite in told.suites]))
        self.scored.update((suite.name, suite.score_gold) for suite in told.suites)
        self.graders.update((suite.name, suite.grader) for suite in told.suites)
        on_progress({"suite": "probe", "done": 1, "total": 2})
        if self.broken is not None:
            return TestingResult(broken=self.broken).model_dump(mode="json")
        results = {suite.name: self._result(told, suite.name, suite.version, suite.path) for suite in told.suites}
        return TestingResult(weights=told.weights, suites=results).model_dump(mode="json")

    def _result(self, told: TestingSpec, name: str, version: str, path: Path) -> SuiteResult:
        items_asked = read_suite(path).values()
        records = tuple(_with_metric(made_up_answer(item, True, 0.9), item) for item in items_asked)
        classes = itertools.cycle(self.errors)
        records = tuple(
            record.model_copy(update={"error": error, "correct": False}) if (error := next(classes)) else record
            for record in records
        )
        if self.answer is not None:
            records = tuple(record.model_copy(update={"answer": self.answer}) for record in records)
        told.work_folder.mkdir(parents=True, exist_ok=True)
        items = told.work_folder / f"{name}.items.jsonl"
        items.write_text(records_to_lines(records))
        key = made_up_key(str(told.weights), version)
        self.noise_known[name] = next(suite.noise_known for suite in told.suites if suite.name == name)
        return SuiteResult(
            n=len(records), correct=len(records), key=key, items=items, tokens=9, tokens_per_s=1.0, noise=self.noise
        )


def _with_metric(record: ItemRecord, item: Example) -> ItemRecord:
    metric = item.metadata.get("metric", "accuracy")
    return record if metric == "accuracy" else record.model_copy(update={"metric": metric, "correct": None})


def records(home: Home) -> set[tuple[str, str]]:
    with home.ledger.read() as session:
        return {(row.checkpoint_id, row.pool) for row in session.query(EvaluationRow)}


def request(home: Home, checkpoint: str, pool: str) -> str:
    with home.ledger.write() as tx:
        suite = current(tx.session, pool).id
        tx.session.add(
            EvaluationRequestRow(checkpoint_id=checkpoint, suite_id=suite, requested_by="test", created_at=tx.now)
        )
    return f"{checkpoint}/{suite}/{tx.now * 1000:.0f}"


def test_probe_and_eval_are_run_once_and_confirm_only_on_request(home: Home) -> None:
    child = ByHeart()
    checkpoint = home.add_checkpoint()
    bus = home.bus(TESTING, children=child)
    bus.sweep()
    assert [suites for _, suites in child.asked] == [["probe", "eval"], ["probe", "eval"]]
    assert ("confirm" in {pool for _, pool in records(home)}) is False
    subject = request(home, checkpoint, "confirm")
    heard = bus.sweep()
    assert [getattr(event, "pools", ()) for event in heard] == [("confirm",)]
    assert home.verdicts("testing")[subject] == "evaluated"
    assert (checkpoint, "confirm") in records(home)
    assert child.scored == {"probe": True, "eval": True, "confirm": False}


def test_the_noise_floor_is_kept_with_the_eval_suite_and_not_measured_again(home: Home) -> None:
    noise = NoiseFloor(
        engine="made up", dtype="bf16", gpu_class="L4", items=200, changed=9, graded=200, flips=2, upper=0.03
    )
    child = ByHeart(noise=noise)
    bus = home.bus(TESTING, children=child)
    bus.sweep()
    assert child.noise_known == {"probe": None, "eval": ()}
    with home.ledger.read() as session:
        assert current(session, "eval").noise == {"made up in bf16 on L4": noise.model_dump()}
    home.add_checkpoint()
    child.noise = None
    bus.sweep()
    assert child.noise_known == {"probe": None, "eval": (("made up", "bf16", "L4"),)}


def test_a_record_explains_itself(home: Home) -> None:
    home.bus(TESTING, children=ByHeart()).sweep()
    with home.ledger.read() as session:
        row = evaluation(session, home.base_id(), current(session, "eval").id)
    assert row is not None
    said = home.artifacts.manifest(row.artifact).provenance
    assert said["key"] == row.key
    assert said["decoding"]["temperature"] == 0.0
    assert row.tally is not None
    assert row.tally["n"] == row.items


def test_the_verdict_tells_errors_of_form_from_wrong_answers(home: Home) -> None:
    home.bus(TESTING, children=ByHeart(errors=("extraction", "wrong", None))).sweep()
    with home.ledger.read() as session:
        verdict = session.query(VerdictRow).filter(VerdictRow.system == "testing").one()
    counts = verdict.numbers["errors"]["eval"]
    assert counts["extraction"] >= counts["wrong"] > 0
    assert f"(extraction {counts['extraction']}, wrong {counts['wrong']})" in verdict.reason


def test_the_newest_is_tested_first_and_older_ones_except_the_base_model_are_superseded(home: Home) -> None:
    old, new = home.add_checkpoint(), home.add_checkpoint()
    home.bus(TESTING, children=ByHeart()).sweep()
    assert home.verdicts("testing") == {new: "evaluated", old: "superseded", home.base_id(): "evaluated"}


def test_a_requested_evaluation_is_not_run_a_second_time(home: Home) -> None:
    """As where the first trained checkpoint is tested before the base model, and regression asks for the latter."""
    child = ByHeart()
    request(home, home.base_id(), "eval")
    home.bus(TESTING, children=child).sweep()
    assert [suites for _, suites in child.asked] == [["eval"], ["probe"]]
    assert records(home) == {(home.base_id(), "eval"), (home.base_id(), "probe")}
    assert home.dead() == []


def test_with_all_records_present_nothing_is_run(home: Home) -> None:
    child = ByHeart()
    home.add_record(home.base_id(), "probe", lambda _item: True)
    home.add_record(home.base_id(), "eval", lambda _item: True)
    home.bus(TESTING, children=child).sweep()
    assert child.asked == []
    assert home.verdicts("testing") == {home.base_id(): "evaluated"}


@dataclass
class AddingFiles(ByHeart):
    """While it answers for the first time, these files are added as tasks, one after the other."""

    home: Home | None = None
    files: Sequence[str] = ()
    suites: list[str] = field(default_factory=list)

    def run(self, target: str, spec: dict[str, Any], **rest: Any) -> dict[str, Any]:
        answer = super().run(target, spec, **rest)
        self.suites += [suite.version for suite in TestingSpec.model_validate(spec).suites]
        files, self.files = self.files, ()
        for file in files:
            assert self.home is not None
            add_rows(self.home, DATA / file, Choice())
        return answer


def test_a_checkpoint_under_test_while_suites_are_renewed_is_tested_on_the_last_ones(home: Home) -> None:
    """Those between are retired before anything is tested on them, and the requests for them are dropped."""
    home.bus(TESTING, children=ByHeart()).sweep()
    with home.ledger.read() as session:
        before = {row.id for row in session.query(SuiteRow)}
    child = AddingFiles(home=home, files=("babi_qa1_100.jsonl", "binary_100.jsonl"))
    checkpoint = home.add_checkpoint()
    home.bus(TESTING, children=child).sweep()
    with home.ledger.read() as session:
        in_force = {current(session, pool).id for pool in ("probe", "eval")}
        assert {row.suite_id for row in session.query(EvaluationRow).filter_by(checkpoint_id=checkpoint)} >= in_force
    assert set(child.suites) <= before | in_force
    assert home.dead() == []


def test_regression_gets_the_champions_record_that_it_asks_for(home: Home) -> None:
    checkpoint = home.add_checkpoint()
    home.add_record(checkpoint, "eval", lambda _item: True)
    home.add_record(checkpoint, "probe", lambda _item: True)
    home.bus(REGRESSION, TESTING, children=ByHeart()).sweep()
    assert home.verdicts("regression")[checkpoint] == "cleared"
    assert home.dead() == []


def test_a_broken_checkpoint_is_reported_and_not_evaluated(home: Home) -> None:
    checkpoint = home.add_checkpoint()
    heard = home.bus(TESTING, children=ByHeart(broken="weights are not finite")).sweep()
    assert home.verdicts("testing")[checkpoint] == "broken"
    assert "checkpoint.broken" in {event.name for event in heard}
    with home.ledger.read() as session:
        row = session.get_one(CheckpointRow, checkpoint)
    assert (row.state, row.reason) == ("broken", "weights are not finite")
    assert records(home) == set()


@pytest.mark.parametrize("character", [*"\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r\n"])
def test_a_checkpoint_is_judged_with_any_characters_in_its_answers(home: Home, character: str) -> None:
    home.bus(TESTING, children=ByHeart(answer=f"one{character}two")).sweep()
    assert home.dead() == []
    assert home.verdicts("testing") == {home.base_id(): "evaluated"}
    with home.ledger.read() as session:
        row = evaluation(session, home.base_id(), current(session, "eval").id)
    assert row is not None
    assert {item.answer for item in load_evaluation(home.artifacts, row).items} == {f"one{character}two"}


def made_elsewhere(home: Home, checkpoint: str) -> None:
    """Change the checkpoint's eval record to another engine."""
    with home.ledger.write() as tx:
        row = evaluation(tx.session, checkpoint, current(tx.session, "eval").id)
        assert row is not None
        row.key = {**row.key, "engine": "of last year"}


def test_records_of_another_engine_are_repeated(home: Home) -> None:
    child = ByHeart()
    bus = home.bus(REGRESSION, TESTING, children=child)
    bus.sweep()
    for _ in range(2):
        made_elsewhere(home, home.base_id())
        checkpoint = home.add_checkpoint()
        bus.sweep()
        assert home.verdicts("regression")[checkpoint] == "cleared"
    assert [suites for _, suites in child.asked] == [["probe", "eval"], *[["probe", "eval"], ["eval"]] * 2]
    assert home.dead() == []


class KilledOnce(ByHeart):
    """Is killed the first time, with some answers on disk; records which folders it may resume from."""

    def __init__(self) -> None:
        super().__init__()
        self.earlier: list[list[str]] = []

    def run(self, target: str, spec: dict[str, Any], **rest: Any) -> dict[str, Any]:
        self.earlier.append([Path(folder).name for folder in spec["earlier"]])
        if len(self.earlier) == 1:
            Path(spec["work_folder"]).mkdir(parents=True)
            raise ChildFailed("killed")
        return super().run(target, spec, **rest)


def test_answers_survive_the_loss_of_their_claim(home: Home) -> None:
    child = KilledOnce()
    bus = home.bus(TESTING, children=child)
    bus.sweep()
    until = time.monotonic() + 30
    while not home.verdicts("testing") and time.monotonic() < until:
        bus.sweep()
    first, second = child.earlier
    assert (first, len(second)) == ([], 1)
    assert home.verdicts("testing") == {home.base_id(): "evaluated"}
    assert not list((home.settings.work_folder / "answers").iterdir())


def test_the_longest_answer_follows_the_setting(tmp_path: Path) -> None:
    with small_home(tmp_path / "told", suites={"max_new_tokens": 7}) as home:
        home.bus(TESTING, children=ByHeart()).sweep()
        with home.ledger.read() as session:
            row = evaluation(session, home.base_id(), current(session, "eval").id)
        assert row is not None
        assert home.artifacts.manifest(row.artifact).provenance["decoding"]["max_new_tokens"] == 7

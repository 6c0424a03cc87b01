"""The judging systems on the rows that people have: four shapes of foreign data, held out, tested and judged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluator.systems.calibration import SYSTEM as CALIBRATION
from evaluator.systems.comparison import SYSTEM as COMPARISON
from evaluator.systems.regression import SYSTEM as REGRESSION
from ratchet.data.example import Example
from ratchet.evaluation.answer_suites import TestingResult, run_suites
from ratchet.evaluation.record import records_from_lines
from ratchet.ledger.suites import current
from ratchet.ledger.tables import CalibrationRow, RankingRow, RegressionRow
from ratchet.tasks.graders import gold, grade_example

from tests.support.home import Home, small_home
from tests.support.tiny_model import build_tiny_model

DATA = Path(__file__).parents[2] / "data"
FILES = tuple(DATA / name for name in ("gsm8k_200.jsonl", "babi_qa1_100.jsonl", "binary_100.jsonl"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with small_home(tmp_path_factory.mktemp("real") / "run", own_data=FILES, suites={"families": []}) as made:
        yield made


def test_every_held_out_row_is_graded_right_by_its_own_gold_and_wrong_by_another(home: Home) -> None:
    items = home.suite_items("eval")
    assert {item.family for item in items} == {"gsm8k", "babi_qa1", "binary"}
    for item in items:
        assert grade_example(item, str(item.answer or gold(item))).correct
        assert not grade_example(item, "no idea at all").correct


def test_a_model_is_asked_for_all_of_them(home: Home, tmp_path: Path) -> None:
    with home.ledger.read() as session:
        row = current(session, "eval")
    path = home.artifacts.fetch(row.artifact) / "rows.jsonl"
    suite = {"name": "eval", "version": row.id, "grader": "declared@1", "path": str(path), "score_gold": True}
    spec = {
        "checkpoint": str(build_tiny_model(tmp_path / "model", initializer_range=0.3)),
        "suites": [suite],
        "work_folder": str(tmp_path / "work"),
        "decoding": {"max_new_tokens": 4},
    }
    result = TestingResult.model_validate(run_suites(spec, lambda _: None))
    assert result.broken is None
    records = records_from_lines(result.suites["eval"].items.read_text().split("\n"))
    assert [record.item_id for record in records] == [item.id for item in home.suite_items("eval")]
    assert all(record.gold_nll is None or record.gold_nll > 0 for record in records)
    assert sum(record.gold_nll is not None for record in records) > len(records) / 2


def test_all_three_judges_reach_a_verdict_with_their_numbers(home: Home) -> None:
    families = sorted({str(item.family) for item in home.suite_items("eval")})
    forgets = "gsm8k"
    base, worse = home.base_id(), home.add_checkpoint()

    def right(item: Example) -> bool:
        return str(item.family) != forgets

    home.add_record(base, "eval", lambda _item: True)
    home.add_record(worse, "eval", right)
    home.bus(REGRESSION, COMPARISON, CALIBRATION).sweep()
    assert home.dead() == []
    with home.ledger.read() as session:
        regression = session.get_one(RegressionRow, worse)
        ranking = session.query(RankingRow).order_by(RankingRow.id.desc()).first()
        calibrations = session.query(CalibrationRow).count()
    assert regression.severity != "none"
    assert regression.numbers["forgotten"] == [forgets]
    assert ranking is not None
    assert sorted(ranking.entries["entries"][0]["by_family"]) == families
    assert calibrations == 2

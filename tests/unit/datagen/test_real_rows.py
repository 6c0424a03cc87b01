"""The curriculum and generation beside the rows that people have, which no family makes."""

from __future__ import annotations

from pathlib import Path

import pytest
from datagen.systems.curriculum import SYSTEM as CURRICULUM
from datagen.systems.generation import SYSTEM as GENERATION
from miner.systems.correction import SYSTEM as CORRECTION
from ratchet.ledger.tables import BatchRow, CurriculumRow
from ratchet.user_tasks.add import Choice

from tests.support.user_tasks import add_task_record, home_of_tasks

OWN = {
    "gsm8k_200.jsonl": Choice(task="sums"),
    "babi_qa1_100.jsonl": Choice(task="babi"),
    "binary_100.jsonl": Choice(task="letters", metric="loss"),
}


def test_real_rows_in_the_probe_leave_the_mix_to_the_families_that_can_be_made(tmp_path: Path) -> None:
    suites = {"families": [{"name": "chain_sum", "levels": [1, 2]}], "probe_items": 10}
    with home_of_tasks(tmp_path / "both", OWN, suites=suites) as home:
        assert {item.family for item in home.suite_items("probe")} == {"chain_sum", "sums", "babi", "letters"}
        checkpoint = home.add_checkpoint()
        add_task_record(home, checkpoint, lambda _key: True, 1.0)
        home.bus(CURRICULUM, GENERATION).sweep()
        assert home.verdicts("curriculum")[checkpoint] == "changed"
        assert home.dead() == []
        with home.ledger.read() as session:
            row = session.query(CurriculumRow).order_by(CurriculumRow.id.desc()).first()
            assert row is not None
            made = {cell for batch in session.query(BatchRow) for cell in batch.provenance["counts"]}
    assert {share["family"] for share in row.mix["shares"]} == {"chain_sum"}
    assert sum(share["weight"] for share in row.mix["shares"]) == pytest.approx(1.0)
    assert {level["family"] for level in row.mastery["levels"]} == {"chain_sum", "sums", "babi"}
    assert made
    assert made <= {"chain_sum/1", "chain_sum/2"}


def test_without_families_only_the_users_rows_are_taught_and_their_mastery_is_told(tmp_path: Path) -> None:
    with home_of_tasks(tmp_path / "own", OWN) as home:
        add_task_record(home, home.add_checkpoint(), lambda _key: True, 1.0)
        home.bus(CURRICULUM, CORRECTION, GENERATION).sweep()
        assert home.dead() == []
        with home.ledger.read() as session:
            row = session.query(CurriculumRow).one()
            (batch,) = session.query(BatchRow).filter(BatchRow.task.is_(None))
        assert row.reason == (
            "mastered: babi 1, sums 1; sums: the best so far; babi: the best so far; letters: the best so far"
        )
        assert set(batch.provenance["tasks"]) == {"sums", "babi", "letters"}
        assert batch.quarantined == 0

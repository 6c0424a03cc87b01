"""The curriculum and generation beside the rows that people have, which no family makes."""

from __future__ import annotations

from pathlib import Path

import pytest
from datagen.systems.curriculum import SYSTEM as CURRICULUM
from datagen.systems.generation import SYSTEM as GENERATION
from ratchet.ledger.tables import BatchRow, CurriculumRow

from tests.support.home import small_home

DATA = Path(__file__).parents[2] / "data"
FILES = tuple(str(DATA / name) for name in ("gsm8k_200.jsonl", "babi_qa1_100.jsonl", "binary_100.jsonl"))
REAL = {"files": FILES, "held_out_share": 0.5, "probe_items": 60, "eval_items": 40, "confirm_items": 40}


def test_real_rows_in_the_probe_leave_the_mix_to_the_families_that_can_be_made(tmp_path: Path) -> None:
    with small_home(tmp_path / "both", suites={**REAL, "families": [{"name": "chain_sum", "levels": [1, 2]}]}) as home:
        assert {item.family for item in home.suite_items("probe")} > {"chain_sum"}
        checkpoint = home.add_checkpoint()
        home.add_record(checkpoint, "probe", lambda item: item.family != "chain_sum")
        home.bus(CURRICULUM, GENERATION).sweep()
        assert home.verdicts("curriculum")[checkpoint] == "changed"
        assert home.dead() == []
        with home.ledger.read() as session:
            shares = session.query(CurriculumRow).order_by(CurriculumRow.id.desc()).first().mix["shares"]  # type: ignore[union-attr]
            made = {cell for batch in session.query(BatchRow) for cell in batch.provenance["counts"]}
    assert {share["family"] for share in shares} == {"chain_sum"}
    assert sum(share["weight"] for share in shares) == pytest.approx(1.0)
    assert made
    assert made <= {"chain_sum/1", "chain_sum/2"}


def test_with_real_rows_only_nothing_is_generated_without_an_error(tmp_path: Path) -> None:
    with small_home(tmp_path / "own", suites={**REAL, "families": []}) as home:
        home.add_record(home.add_checkpoint(), "probe", lambda _item: True)
        home.bus(CURRICULUM, GENERATION).sweep()
        assert home.dead() == []
        with home.ledger.read() as session:
            assert session.query(BatchRow).count() == 0

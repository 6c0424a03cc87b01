from __future__ import annotations

from ratchet.evaluation.noise_floor import NoiseFloor
from ratchet.ledger import Ledger
from ratchet.ledger.noise_floors import noise_of
from ratchet.ledger.tables import CheckpointRow, EvaluationRow, SuiteRow
from ratchet.views.verdicts import explain
from sqlalchemy import select

from tests.support.story.past import checkpoint_id


def test_a_record_shows_the_noise_floor_of_its_own_conditions(ledger: Ledger) -> None:
    with ledger.write() as tx:
        row = tx.session.scalars(
            select(EvaluationRow).where(EvaluationRow.checkpoint_id == checkpoint_id(1), EvaluationRow.pool == "eval")
        ).one()
        conditions = {"engine": "torch", "dtype": "bf16", "gpu_class": "L4"}
        row.key = {**row.key, **conditions}
        own = NoiseFloor(**conditions, items=200, changed=5, graded=200, flips=1, upper=0.02)
        other = own.model_copy(update={"engine": "another", "flips": 7})
        suite = tx.session.get_one(SuiteRow, row.suite_id)
        suite.noise = {other.under: other.model_dump(), own.under: own.model_dump(), "of another version": {"flips": 1}}
    with ledger.read() as session:
        assert noise_of(session, suite.id, row.key) == own
        assert noise_of(session, suite.id, {"engine": "unknown"}) is None
        assert noise_of(session, "no suite", row.key) is None
        entries = explain(session, session.get_one(CheckpointRow, checkpoint_id(1)))["evaluations"]
        told = {entry["who"]: entry["reason"] for entry in entries}
    assert "5 of 200 answers changed, 1 of 200 grades (at most 2.0% at 95 %)" in told["eval suite"]

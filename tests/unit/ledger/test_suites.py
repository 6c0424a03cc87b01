from __future__ import annotations

from ratchet.evaluation.record import RecordKey
from ratchet.ledger import Ledger, Transaction
from ratchet.ledger.suites import best_before
from ratchet.ledger.tables import CheckpointRow, EvaluationRow, SuiteRow

SUITE = "eval-1"


def add(tx: Transaction, ordinal: int, score: float | None, dtype: str = "fp32", state: str = "saved") -> None:
    """A checkpoint with a record; ``score`` None leaves it out of the ledger."""
    name = f"c{ordinal}"
    key = RecordKey(
        weights=name, suite=SUITE, grader="g", decoding="greedy", dtype=dtype, engine="local", gpu_class="cpu"
    )
    checkpoint = CheckpointRow(
        id=name, ordinal=ordinal, step=ordinal, tokens=0, weights=name, artifact="", size_bytes=0, created_at=tx.now
    )
    checkpoint.state = state
    record = EvaluationRow(
        id=f"{name}/{SUITE}",
        checkpoint_id=name,
        suite_id=SUITE,
        pool="eval",
        key=key.model_dump(),
        artifact="",
        items=10,
        correct=5,
        by_level={},
        tokens_per_s=1.0,
        tally=None if score is None else {"selection_score": score},
        created_at=tx.now,
    )
    tx.session.add(checkpoint)
    tx.session.flush()
    tx.session.add(record)


def test_the_best_earlier_checkpoint_has_the_highest_score(ledger: Ledger) -> None:
    with ledger.write() as tx:
        tx.session.add(SuiteRow(id=SUITE, pool="eval", ordinal=1, artifact="", items=10, created_at=tx.now))
        tx.session.flush()
        for ordinal, score in enumerate([0.1, 0.75, 0.8, 0.8, None, 0.9]):
            add(tx, ordinal, score)
        add(tx, 6, 0.99, dtype="bf16")
        add(tx, 7, 0.99, state="broken")
        add(tx, 8, 0.2)
    with ledger.read() as session:
        baseline = session.get_one(EvaluationRow, f"c0/{SUITE}")
        for ordinal, expected in ((8, ["c5", "c4"]), (5, ["c3", "c4"]), (4, ["c3"]), (0, [])):
            assert [row.checkpoint_id for row in best_before(session, baseline, ordinal)] == expected

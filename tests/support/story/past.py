"""The past of the story: batches, checkpoints, and their verdicts."""

from __future__ import annotations

from ratchet.events.catalogue import (
    BatchSubmitted,
    CheckpointDeployed,
    CheckpointEvaluated,
    CheckpointSaved,
)
from ratchet.ledger import Transaction
from ratchet.ledger.tables import (
    BatchRow,
    CalibrationRow,
    ChallengeRow,
    CheckpointRow,
    DeploymentRow,
    EvaluationRow,
    MinedRow,
    RegressionRow,
    VerdictRow,
)
from ratchet.systems import registry

from tests.support.story.names import batch_id, checkpoint_id

LEVELS = {
    0: (0, 0, 0, 0, 0, 0),
    1: (50, 3, 2, 0, 0, 0),
    2: (50, 41, 4, 1, 0, 0),
    3: (50, 46, 30, 3, 0, 0),
    4: (50, 45, 38, 9, 1, 0),
    5: (49, 47, 41, 12, 2, 0),
}
CALIBRATION = {"ece": 0.04, "temperature": 1.1, "raw": {"ece": 0.06}, "tempered": {"ece": 0.04}}
OUTCOMES = {1: "deployed", 2: "refused", 3: "deployed", 4: "superseded"}


def add_batch(
    tx: Transaction, ordinal: int, at: float, state: str, origin: str = "generation", offset: int = 0
) -> None:
    examples = 8000 if state != "submitted" else 0
    tx.session.add(
        BatchRow(
            id=batch_id(ordinal),
            origin=origin,
            state=state,
            priority=1,
            submitted_artifact="s" * 64,
            artifact="a" * 64 if examples else None,
            quarantine_artifact=None,
            submitted_examples=8000,
            examples=examples,
            quarantined=3 if ordinal == 2 else 0,
            offset=examples if state == "trained" else offset,
            provenance={"generator": "families", "counts": {"corrections": 400} if ordinal == 4 else {}},
            report={"reasons": {"duplicate": 3}} if ordinal == 2 else {},
            submitted_at=at,
            queued_at=at + 1 if examples else None,
            started_at=None,
            finished_at=None,
        )
    )
    tx.emit(BatchSubmitted(batch_id=batch_id(ordinal)))


def add_checkpoint(tx: Transaction, ordinal: int, at: float) -> None:
    tx.session.add(
        CheckpointRow(
            id=checkpoint_id(ordinal),
            ordinal=ordinal,
            parent_id=checkpoint_id(ordinal - 1) if ordinal else None,
            batch_id=batch_id(ordinal) if ordinal else None,
            offset=8000 if ordinal else 0,
            step=250 * ordinal,
            tokens=250_000 * ordinal,
            weights=f"{ordinal:02d}" + "f" * 62,
            artifact="a" * 64,
            state_artifact=None,
            size_bytes=481_280,
            train_loss=2.1 / (ordinal + 1) if ordinal else None,
            tokens_per_s=18_500.0 if ordinal else None,
            created_at=at,
        )
    )
    if ordinal:
        tx.emit(CheckpointSaved(checkpoint_id=checkpoint_id(ordinal), step=250 * ordinal))


def add_judgement(tx: Transaction, ordinal: int, at: float) -> None:
    """All records and verdicts of a checkpoint; the first and third are deployed, the second is refused."""
    cid = checkpoint_id(ordinal)
    evaluated = CheckpointEvaluated(checkpoint_id=cid, pools=("eval", "probe"))
    _add_records(tx, ordinal, at)
    tx.emit(evaluated)
    for place, judge in enumerate(registry.per_checkpoint(tx.session)):
        outcome = OUTCOMES.get(ordinal) if judge == "deployment" else "done"
        if outcome is not None:
            add_verdict(tx, judge, cid, outcome, at + 2 + 0.1 * place, evaluated.id)
    if ordinal in (1, 3):
        _add_deployment(tx, ordinal, at + 4)
        tx.emit(CheckpointDeployed(checkpoint_id=cid, previous_id=None, cause=evaluated.id))
    if ordinal == 2:
        _add_refused_challenge(tx, cid, at + 4)


def _add_records(tx: Transaction, ordinal: int, at: float) -> None:
    cid, counts = checkpoint_id(ordinal), LEVELS[ordinal]
    tx.session.add(
        EvaluationRow(
            id=f"e{ordinal}",
            checkpoint_id=cid,
            suite_id="eval-1",
            pool="eval",
            key={},
            artifact="a" * 64,
            items=300,
            correct=sum(counts),
            by_level={"chain_sum": {str(level): [n, 50] for level, n in enumerate(counts, start=1)}},
            tokens_per_s=21_000.0,
            created_at=at + 2,
        )
    )
    tx.session.add(
        CalibrationRow(
            checkpoint_id=cid, shipped=CALIBRATION.get("shipped", {}), numbers=CALIBRATION, created_at=at + 3
        )
    )
    tx.session.add(
        RegressionRow(
            checkpoint_id=cid,
            baseline_id=None,
            severity="none",
            numbers={"lost": 2, "won": 40},
            created_at=at + 3,
        )
    )
    tx.session.add(
        MinedRow(checkpoint_id=cid, artifact=None, count=14 if ordinal else 0, by_category={}, created_at=at + 3)
    )


def _add_deployment(tx: Transaction, ordinal: int, at: float) -> None:
    tx.session.add(
        DeploymentRow(
            action="deploy",
            actor="gate",
            checkpoint_id=checkpoint_id(ordinal),
            previous_id=checkpoint_id(max(0, ordinal - 2)),
            reason="+16.7 points (won 52, lost 2, p = 1e-13), protected families no worse",
            numbers={"won": 52, "lost": 2},
            token=ordinal,
            created_at=at,
        )
    )


def _add_refused_challenge(tx: Transaction, challenger: str, at: float) -> None:
    tx.session.add(
        ChallengeRow(
            champion_id=checkpoint_id(1),
            challenger_id=challenger,
            k=1,
            suite_id="confirm-1",
            outcome="refused",
            numbers={"won": 6, "lost": 4},
            created_at=at,
        )
    )


def add_verdict(tx: Transaction, system: str, subject: str, outcome: str, at: float, cause: str | None = None) -> None:
    reason = {
        "deployed": "+16.7 points (won 52, lost 2), protected families no worse, smoke test passed",
        "refused": "no proof of gain: won 6, lost 4 of 900, p = 0.38 > 0.030",
        "superseded": "a newer checkpoint is better",
    }.get(outcome, f"by {system}, on 300 items")
    tx.session.add(
        VerdictRow(
            system=system,
            subject_kind="checkpoint",
            subject_id=subject,
            outcome=outcome,
            reason=reason,
            numbers={"items": 300},
            cause=cause,
            worker=f"{system}@box+0",
            created_at=at,
            took_s=0.2,
        )
    )

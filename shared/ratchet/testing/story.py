"""A ledger with a plausible story, for tests of what reads one: five judged checkpoints, the sixth in training."""

from __future__ import annotations

from typing import Any

from ratchet.events.catalogue import (
    BatchSubmitted,
    CheckpointDeployed,
    CheckpointEvaluated,
    CheckpointSaved,
    QueueLow,
    TrainingStarted,
)
from ratchet.ledger import Transaction
from ratchet.ledger.tables import (
    Batch,
    Branch,
    Calibration,
    Challenge,
    Checkpoint,
    Claim,
    Curriculum,
    DeadLetter,
    Deployment,
    Evaluation,
    Fork,
    Line,
    Mined,
    Ranking,
    Regression,
    Serving,
    SuiteRow,
    Trial,
    Verdict,
    Worker,
)
from ratchet.run.cycles import JUDGES

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


def checkpoint_id(ordinal: int) -> str:
    return f"{ordinal:02d}" + "c" * 30


def batch_id(ordinal: int) -> str:
    return f"{ordinal:02d}" + "b" * 30


def write_story(tx: Transaction) -> None:
    start = tx.now - 300.0
    for pool in ("probe", "eval", "confirm"):
        tx.session.add(
            SuiteRow(
                id=f"{pool}-1",
                pool=pool,
                ordinal=1,
                artifact="a" * 64,
                items=300,
                uses=2,
                created_at=start,
                retired_at=None,
            )
        )
    tx.session.flush()
    for ordinal in range(6):
        if ordinal:
            add_batch(tx, ordinal, start + 50 * ordinal, "trained")
            tx.session.flush()
        add_checkpoint(tx, ordinal, start + 50 * ordinal)
        tx.session.flush()
        add_judgement(tx, ordinal, start + 50 * ordinal)
    add_batch(tx, 6, tx.now - 20, "training", offset=3200)
    add_batch(tx, 7, tx.now - 10, "queued", origin="correction")
    add_batch(tx, 8, tx.now - 5, "submitted", origin="file")
    add_state(tx, start)
    add_claim(tx)
    tx.emit(TrainingStarted(batch_id=batch_id(6)))
    tx.emit(QueueLow(depth=9_000, low_water=12_000))


def add_batch(
    tx: Transaction, ordinal: int, at: float, state: str, origin: str = "generation", offset: int = 0
) -> None:
    examples = 8000 if state != "submitted" else 0
    tx.session.add(
        Batch(
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
            provenance={"generator": "families", "counts": {"lessons": 400} if ordinal == 4 else {}},
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
        Checkpoint(
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
    counts = LEVELS[ordinal]
    cid = checkpoint_id(ordinal)
    evaluated = CheckpointEvaluated(checkpoint_id=cid, pools=("eval", "probe"))
    tx.session.add(
        Evaluation(
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
    tx.session.add(Calibration(checkpoint_id=cid, numbers=CALIBRATION, created_at=at + 3))
    tx.session.add(
        Regression(
            checkpoint_id=cid,
            baseline_id=None,
            severity="none",
            numbers={"lost": 2, "won": 40},
            created_at=at + 3,
        )
    )
    tx.session.add(
        Mined(checkpoint_id=cid, artifact=None, count=14 if ordinal else 0, by_category={}, created_at=at + 3)
    )
    tx.emit(evaluated)
    for place, judge in enumerate(JUDGES):
        outcome = OUTCOMES.get(ordinal) if judge == "deployment" else "done"
        if outcome is not None:
            add_verdict(tx, judge, cid, outcome, at + 2 + 0.1 * place, evaluated.id)
    if ordinal in (1, 3):
        tx.session.add(
            Deployment(
                action="deploy",
                checkpoint_id=cid,
                previous_id=checkpoint_id(max(0, ordinal - 2)),
                reason="+16.7 points (won 52, lost 2, p = 1e-13), protected families no worse",
                numbers={"won": 52, "lost": 2},
                token=ordinal,
                created_at=at + 4,
            )
        )
        tx.emit(CheckpointDeployed(checkpoint_id=cid, previous_id=None, cause=evaluated.id))
    if ordinal == 2:
        tx.session.add(
            Challenge(
                champion_id=checkpoint_id(1),
                challenger_id=cid,
                k=1,
                suite_id="confirm-1",
                outcome="refused",
                numbers={"won": 6, "lost": 4},
                created_at=at + 4,
            )
        )


def add_verdict(tx: Transaction, system: str, subject: str, outcome: str, at: float, cause: str | None = None) -> None:
    reason = {
        "deployed": "+16.7 points (won 52, lost 2), protected families no worse, smoke test passed",
        "refused": "no proof of gain: won 6, lost 4 of 900, p = 0.38 > 0.030",
        "superseded": "a newer checkpoint is better",
    }.get(outcome, f"by {system}, on 300 items")
    tx.session.add(
        Verdict(
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


def add_state(tx: Transaction, start: float) -> None:
    session = tx.session
    session.add(Line(name="main", head_id=checkpoint_id(5), running_batch_id=batch_id(6), updated_at=tx.now))
    session.add(
        Serving(
            name="main",
            desired_id=checkpoint_id(3),
            previous_id=checkpoint_id(1),
            actual_id=checkpoint_id(3),
            actual_at=tx.now,
            canary_id=checkpoint_id(3),
            canary_passed=True,
            canary_difference=2e-6,
            canary_at=tx.now - 140,
            frozen_reason=None,
            since_at=tx.now - 145,
        )
    )
    session.add(
        Ranking(
            best_checkpoint_id=checkpoint_id(5),
            entries={"order": [checkpoint_id(i) for i in (5, 4, 3, 2, 1, 0)]},
            created_at=tx.now,
        )
    )
    session.add(
        Curriculum(
            mix={"strategy": "progressive", "shares": [_share(3, 0.5), _share(4, 0.5)]},
            mastery={},
            mixes={},
            experiment=_experiment(),
            reason="level 3 is the frontier",
            created_at=tx.now,
        )
    )
    session.add(
        Trial(
            checkpoint_id=checkpoint_id(5),
            before_id=checkpoint_id(4),
            through={"checkpoints": [], "batches": []},
            arm="adaptive",
            tokens=200_000,
            items=50,
            gains=4,
            losses=2,
            created_at=tx.now,
        )
    )
    session.add(
        DeadLetter(
            system="mining",
            subject_kind="checkpoint",
            subject_id=checkpoint_id(2),
            error="ChildFailed: it ran out of memory",
            traceback="Traceback …",
            failures=3,
            kills=0,
            created_at=start + 120,
            resolved_at=None,
            resolution=None,
        )
    )
    for system in ("training", "testing", "deployment"):
        session.add(
            Worker(
                name=f"{system}@box+0",
                system=system,
                host="box",
                pid=100,
                version="0.1.0",
                started_at=start,
                seen_at=tx.now,
                metrics_url=None,
                state="idle",
            )
        )


def add_claim(tx: Transaction) -> None:
    tx.session.add(
        Claim(
            system="training",
            subject_kind="batch",
            subject_id=batch_id(6),
            token=9,
            owner="training@box+0",
            first_at=tx.now - 20,
            claimed_at=tx.now - 20,
            heartbeat_at=tx.now,
            expires_at=tx.now + 60,
            not_before_at=0.0,
            progress=41,
            note="step 1350, loss 0.352",
        )
    )


def _share(level: int, weight: float) -> dict[str, Any]:
    return {"family": "chain_sum", "level": level, "weight": weight, "role": "frontier", "reason": "it is its turn"}


def _experiment() -> dict[str, Any]:
    arms = [
        {
            "name": name,
            "share": share,
            "trials": 3,
            "weight": 2.5,
            "points": points,
            "low": -1,
            "high": 3,
            "best": share,
        }
        for name, share, points in (("progressive", 0.25, 0.4), ("adaptive", 0.75, 1.2))
    ]
    said = "adaptive beats progressive by 0.80 ± 0.70 points per 100k tokens, P = 0.97"
    return {"state": "decided", "leader": "adaptive", "arms": arms, "comparisons": [], "report": [said]}


def write_fork(tx: Transaction) -> None:
    """Beside the story: #4 and #5 are the tips of a fork from #3, decided for the second."""
    start = tx.now - 100.0
    tx.session.add(
        Fork(
            id=1,
            state="decided",
            curriculum_id=1,
            parent_id=checkpoint_id(3),
            adapter_base_id=None,
            winner=1,
            numbers={"items": 300, "gains": 20, "losses": 5, "p": 0.004, "low": 0.018, "high": 0.085, "points": 5.0},
            reason="adaptive beats mixed: 20 won and 5 lost of 300 items",
            opened_at=start,
            closed_at=tx.now,
        )
    )
    tx.session.flush()
    for place, (arm, ordinal) in enumerate((("mixed", 4), ("adaptive", 5))):
        tx.session.add(
            Branch(
                fork_id=1,
                place=place,
                arm=arm,
                probability=1.0,
                batch_id=batch_id(ordinal),
                tip_id=checkpoint_id(ordinal),
                adapter_base_id=None,
            )
        )

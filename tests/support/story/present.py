"""The present state of the story: head, server, curriculum, a dead letter, and working systems."""

from __future__ import annotations

from typing import Any

from ratchet.ledger import Transaction
from ratchet.ledger.tables import (
    ClaimRow,
    CurriculumRow,
    DeadLetterRow,
    DrillRow,
    LineageRow,
    RankingRow,
    ServingRow,
    TrialRow,
    WorkerRow,
)

from tests.support.story.names import batch_id, checkpoint_id


def add_line(tx: Transaction) -> None:
    """The fifth checkpoint is the head and the best, the third is live."""
    session = tx.session
    session.add(LineageRow(name="main", head_id=checkpoint_id(5), running_batch_id=batch_id(6), updated_at=tx.now))
    session.add(
        ServingRow(
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
        DrillRow(
            requested_at=tx.now - 130,
            requested_by="operator",
            reason="a regular drill",
            attempts=1,
            started_at=tx.now - 129,
            finished_at=tx.now - 120,
            outcome="caught",
            detail="a log-probability differs by 7.1 from the judged one, over 0.001",
            steps={"control": 1.1, "plant": 0.3, "load": 5.2, "canary": 1.2, "return": 0.2},
            before_id=checkpoint_id(3),
            before_weights="3" * 64,
            after_id=checkpoint_id(3),
            after_weights="3" * 64,
        )
    )
    session.add(
        RankingRow(
            best_checkpoint_id=checkpoint_id(5),
            entries={"order": [checkpoint_id(i) for i in (5, 4, 3, 2, 1, 0)]},
            created_at=tx.now,
        )
    )


def add_curriculum(tx: Transaction) -> None:
    session = tx.session
    session.add(
        CurriculumRow(
            mix={"strategy": "progressive", "shares": [_share(3, 0.5), _share(4, 0.5)]},
            mastery={},
            mixes={},
            experiment=_experiment(),
            reason="level 3 is the frontier",
            created_at=tx.now,
        )
    )
    session.add(
        TrialRow(
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


def add_dead_letter(tx: Transaction, at: float) -> None:
    tx.session.add(
        DeadLetterRow(
            system="mining",
            subject_kind="checkpoint",
            subject_id=checkpoint_id(2),
            error="ChildFailed: it ran out of memory",
            traceback="Traceback …",
            failures=3,
            kills=0,
            created_at=at,
            resolved_at=None,
            resolution=None,
        )
    )


def add_workers(tx: Transaction, start: float) -> None:
    for system in ("training", "testing", "deployment"):
        tx.session.add(
            WorkerRow(
                name=f"{system}@box+0",
                system=system,
                host="box",
                pid=100,
                version="0.1.0",
                started_at=start,
                seen_at=tx.now,
                metrics_url=None,
                state="running",
            )
        )


def add_claim(tx: Transaction) -> None:
    tx.session.add(
        ClaimRow(
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

"""Verdicts, dead letters, workers and measured correction batches that a test makes up, as rows of the ledger."""

from __future__ import annotations

from typing import Any

from ratchet.ledger.tables import BatchRow, DeadLetterRow, ImpactRow, VerdictRow, WorkerRow
from sqlalchemy.orm import Session


def verdict(system: str, kind: str, subject_id: str, outcome: str, at: float = 0.0, **columns: Any) -> VerdictRow:
    """The system's verdict on the subject; ``columns`` are those that the test looks at."""
    made_up: dict[str, Any] = {"reason": "", "numbers": {}, "cause": None, "worker": f"{system}@box+0", "took_s": 0.1}
    told = {**made_up, **columns}
    return VerdictRow(system=system, subject_kind=kind, subject_id=subject_id, outcome=outcome, created_at=at, **told)


def dead_letter(system: str, kind: str, subject_id: str, at: float = 0.0, **columns: Any) -> DeadLetterRow:
    """An open letter of the system, after three failures; ``columns`` are those that the test looks at."""
    made_up: dict[str, Any] = {"error": "", "traceback": "", "failures": 3, "kills": 0}
    told = {**made_up, "resolved_at": None, "resolution": None, **columns}
    return DeadLetterRow(system=system, subject_kind=kind, subject_id=subject_id, created_at=at, **told)


def worker_row(system: str, at: float = 0.0, **columns: Any) -> WorkerRow:
    """A worker that runs; ``columns`` are those that the test looks at."""
    made_up: dict[str, Any] = {"host": "box", "pid": 1, "version": "0", "metrics_url": None}
    return WorkerRow(name=f"{system}@box+0", system=system, started_at=at, seen_at=at, **{**made_up, **columns})


def measured_without_gain(session: Session, batch: str, error_class: str) -> None:
    """A trained correction batch, older than all others, after which nothing had changed."""
    session.add(
        BatchRow(
            id=batch,
            origin="correction",
            state="trained",
            priority=0,
            submitted_artifact="x",
            submitted_examples=1,
            provenance={"classes": {error_class: 5}},
            submitted_at=0.0,
        )
    )
    numbers = {"items": 20, "before": 5, "after": 5, "gains": 0, "losses": 0, "low": -0.1, "high": 0.1}
    session.add(
        ImpactRow(
            batch_id=batch, checkpoint_id="c", error_class=error_class, baseline_id="b", created_at=0.0, **numbers
        )
    )

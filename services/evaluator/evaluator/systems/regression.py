"""Continuous regression monitor: whether a checkpoint is worse than the champion, or than the best so far."""

from __future__ import annotations

from dataclasses import dataclass

from ratchet.evaluation.load_evaluation import load_if_intact
from ratchet.evaluation.record import Evaluation, selection_score
from ratchet.events.catalogue import (
    CheckpointCleared,
    CheckpointEvaluated,
    CheckpointRegressed,
)
from ratchet.ledger import Transaction
from ratchet.ledger.deployments import champion
from ratchet.ledger.suites import best_before, current, evaluation, outdated_record, request_evaluation
from ratchet.ledger.tables import CheckpointRow, EvaluationRow, RegressionRow
from ratchet.settings import Settings
from ratchet.systems import Lane, NotReady, Outcome, Subject, System, Verdict, Work
from ratchet.systems.evaluated_checkpoints import evaluated_without
from sqlalchemy.orm import Session

from evaluator.regression_verdict import RegressionVerdict, judge_regression

NAME = "regression"


@dataclass(frozen=True)
class Rows:
    """Ledger rows of the candidate, of the champion, and of what may be the best that is older than the candidate."""

    candidate: EvaluationRow
    champion_id: str
    champion: EvaluationRow | None
    suite_id: str
    best: tuple[EvaluationRow, ...]


def find(session: Session, _settings: Settings) -> list[Subject]:
    return evaluated_without(session, NAME, "eval")


def do(work: Work) -> Outcome:
    rows = _rows(work)
    if rows.champion_id == rows.candidate.checkpoint_id:
        return _recorded(rows.champion_id, None, "none", {}, "It is the champion itself.")
    if rows.champion is None:
        return _request(rows, rows.champion_id, work.subject.id)
    older = outdated_record(rows.champion, rows.candidate)
    if older is not None:
        pair = {rows.champion_id, work.subject.id}
        return _request(rows, older.checkpoint_id, *pair - {older.checkpoint_id})
    candidate, baseline = load_if_intact(work.artifacts, rows.candidate), load_if_intact(work.artifacts, rows.champion)
    if baseline is None:
        return _request(rows, rows.champion_id, work.subject.id, is_damaged=True)
    if candidate is None:
        return _request(rows, work.subject.id, rows.champion_id, is_damaged=True)
    verdict = judge_regression(candidate, baseline, _best_so_far(work, rows), work.settings.regression)
    return _verdict(verdict, rows.champion_id)


def _rows(work: Work) -> Rows:
    with work.read() as session:
        suite = current(session, "eval")
        candidate = evaluation(session, work.subject.id, suite.id)
        assert candidate is not None, "found by its record"
        ordinal = session.get_one(CheckpointRow, work.subject.id).ordinal
        holder = champion(session)
        baseline = evaluation(session, holder.id, suite.id)
        best = best_before(session, baseline, ordinal) if baseline is not None else ()
        return Rows(candidate, holder.id, baseline, suite.id, best)


def _best_so_far(work: Work, rows: Rows) -> Evaluation | None:
    """None if there is none that can be read: then the champion is the only baseline."""
    records = [load_if_intact(work.artifacts, row) for row in rows.best]
    return max((record for record in records if record is not None), key=selection_score, default=None)


def _request(rows: Rows, checkpoint_id: str, compared_with: str, *, is_damaged: bool = False) -> NotReady:
    return NotReady(
        f"the eval record of {checkpoint_id}",
        lambda tx: request_evaluation(tx, checkpoint_id, rows.suite_id, NAME, compared_with, is_damaged=is_damaged),
    )


def _verdict(verdict: RegressionVerdict, champion_id: str) -> Verdict:
    numbers = verdict.model_dump(mode="json")
    return _recorded(verdict.checkpoint_id, champion_id, verdict.severity, numbers, verdict.reason)


def _recorded(
    checkpoint_id: str, baseline_id: str | None, severity: str, numbers: dict[str, object], reason: str
) -> Verdict:
    def effects(tx: Transaction) -> None:
        tx.session.add(
            RegressionRow(
                checkpoint_id=checkpoint_id,
                baseline_id=baseline_id,
                severity=severity,
                numbers=numbers,
                created_at=tx.now,
            )
        )

    if severity == "none":
        return Verdict("cleared", reason, numbers, effects, (CheckpointCleared(checkpoint_id=checkpoint_id),))
    event = CheckpointRegressed(checkpoint_id=checkpoint_id, severity=severity)
    return Verdict("regressed", reason, numbers, effects, (event,))


SYSTEM = System(
    name=NAME,
    host="3090",
    purpose="Compares every checkpoint with the champion and the best so far, item by item.",
    emits=(CheckpointCleared, CheckpointRegressed),
    sweep_s=300.0,
    lanes=(Lane("compare", (CheckpointEvaluated,), find, do),),
    order=3,
    per_checkpoint=True,
    is_judge=True,
    pending="eval records",
)

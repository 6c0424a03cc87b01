"""Confidence calibrator: fits the temperature and threshold that ship with a deployment."""

from __future__ import annotations

from ratchet.evaluation.load_evaluation import load_if_intact
from ratchet.events.catalogue import CheckpointCalibrated, CheckpointEvaluated
from ratchet.ledger import Transaction
from ratchet.ledger.suites import current, evaluation
from ratchet.ledger.tables import CalibrationRow
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from ratchet.systems.evaluated_checkpoints import evaluated_without, request_again
from sqlalchemy.orm import Session

from evaluator.calibration_fit import CalibrationFit, Uncalibrated, calibrate

NAME = "calibration"


def find(session: Session, _settings: Settings) -> list[Subject]:
    return evaluated_without(session, NAME, "eval")


def do(work: Work) -> Outcome:
    with work.read() as session:
        row = evaluation(session, work.subject.id, current(session, "eval").id)
    assert row is not None, "found by its record"
    record = load_if_intact(work.artifacts, row)
    if record is None:
        return request_again(row, NAME)
    found = calibrate(record, work.settings.calibration)
    numbers = found.model_dump(mode="json")

    def effects(tx: Transaction) -> None:
        shipped = numbers["shipped"] or {}
        tx.session.add(
            CalibrationRow(checkpoint_id=work.subject.id, shipped=shipped, numbers=numbers, created_at=tx.now)
        )

    events = (CheckpointCalibrated(checkpoint_id=work.subject.id),)
    if isinstance(found, Uncalibrated):
        return Verdict("uncalibrated", f"No confidence is stated: {found.reason}.", numbers, effects, events)
    return Verdict("calibrated", _reason(found), numbers, effects, events)


def _reason(found: CalibrationFit) -> str:
    words = (
        f"ECE {found.raw.ece:.3f}, at temperature {found.temperature:.2f} {found.tempered.ece:.3f} "
        f"on {found.tempered.n} items"
    )
    if found.abstention is None or found.abstention.precision is None:
        return f"{words}. No threshold gives {found.shipped.precision:.0%} right answers."
    return (
        f"{words}. Answers from a confidence of {found.abstention.threshold:.2f} on, {found.abstention.coverage:.0%} "
        f"of all, are right in {found.abstention.precision:.0%}."
    )


SYSTEM = System(
    name=NAME,
    host="3090",
    purpose="Measures how well a checkpoint's confidence predicts its success, and fits a temperature.",
    emits=(CheckpointCalibrated,),
    sweep_s=600.0,
    lanes=(Lane("calibrate", (CheckpointEvaluated,), find, do),),
    order=5,
    per_checkpoint=True,
    is_judge=True,
    pending="eval records",
)

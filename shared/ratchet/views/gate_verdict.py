"""The gate's last decision on a checkpoint, in the form of a verdict for pipelines."""

from __future__ import annotations

from contextlib import suppress

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.errors import PreconditionFailed
from ratchet.gate.decision import Evidence
from ratchet.gate.verdict import give_verdict
from ratchet.gate.verdict_values import Verdict
from ratchet.ledger.noise_floors import noise_of
from ratchet.ledger.tables import ChallengeRow, CheckpointRow, EvaluationRow
from ratchet.settings.judging import GateSettings
from ratchet.views.checkpoint_names import label


def gate_verdict(session: Session, checkpoint: CheckpointRow, settings: GateSettings) -> Verdict:
    """The verdict on the checkpoint's last challenge. Raises PreconditionFailed if none has been decided."""
    found = last_verdict(session, checkpoint, settings)
    if found is None:
        raise PreconditionFailed(
            f"{label(checkpoint)} was never tested by the gate; `ratchet why {checkpoint.ordinal}` says what it "
            "waits for."
        )
    return found


def last_verdict(session: Session, checkpoint: CheckpointRow, settings: GateSettings) -> Verdict | None:
    """The verdict on the checkpoint's last challenge that was decided: the one that the gate kept, or that of its
    evidence, with the noise floor of its eval record, where an earlier version has decided.
    """
    row = session.scalar(
        select(ChallengeRow)
        .where(ChallengeRow.challenger_id == checkpoint.id, ChallengeRow.outcome.is_not(None))
        .order_by(ChallengeRow.id.desc())
        .limit(1)
    )
    if row is None:
        return None
    with suppress(KeyError, ValidationError):
        return Verdict.model_validate(row.numbers["verdict"])
    try:
        evidence = Evidence.model_validate(row.numbers["evidence"])
    except (KeyError, ValidationError):  # superseded while it was open
        return None
    record = session.scalar(
        select(EvaluationRow)
        .where(EvaluationRow.checkpoint_id == checkpoint.id, EvaluationRow.pool == "eval")
        .order_by(EvaluationRow.created_at.desc())
        .limit(1)
    )
    noise = noise_of(session, record.suite_id, record.key) if record is not None else None
    return give_verdict(evidence, settings, noise=noise)

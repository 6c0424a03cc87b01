"""Asking testing for a record: one that was never made, or one that was made under other conditions than its fellow."""

from __future__ import annotations

from sqlalchemy import Select, exists, select

from ratchet.evaluation.record import RecordKey
from ratchet.events.catalogue import EvaluationRequested
from ratchet.ledger.ledger import Transaction
from ratchet.ledger.suites import evaluation
from ratchet.ledger.tables import EvaluationRequestRow, EvaluationRow


def ask(tx: Transaction, checkpoint_id: str, suite_id: str, who: str, beside: str, *, is_damaged: bool = False) -> None:
    """Request a record that is to be compared with that of the checkpoint ``beside``, and tell of it.

    Nothing happens where there is one that compares, unless it ``is_damaged``. One that does not, being older, is put
    aside and made anew under the conditions of today; its items stay in the artifact store. An open request is not
    made twice.
    """
    record, other = (evaluation(tx.session, name, suite_id) for name in (checkpoint_id, beside))
    if record is not None and not is_damaged and (other is None or outdated(record, other) is not record):
        return
    request = tx.session.get(EvaluationRequestRow, (checkpoint_id, suite_id))
    if request is None:
        tx.session.add(
            EvaluationRequestRow(checkpoint_id=checkpoint_id, suite_id=suite_id, requested_by=who, created_at=tx.now)
        )
    elif record is not None:
        request.requested_by, request.created_at = who, tx.now
    if record is not None:
        tx.session.delete(record)
    tx.emit(EvaluationRequested(checkpoint_id=checkpoint_id, suite_id=suite_id))


def unanswered() -> Select[EvaluationRequestRow]:
    """The requests whose record is not there; those that were answered stay in the table."""
    answer = exists().where(
        EvaluationRow.checkpoint_id == EvaluationRequestRow.checkpoint_id,
        EvaluationRow.suite_id == EvaluationRequestRow.suite_id,
    )
    return select(EvaluationRequestRow).where(~answer)


def outdated(one: EvaluationRow, other: EvaluationRow) -> EvaluationRow | None:
    """The older of two records on one suite that were made under different conditions; None where they compare."""
    conditions = [RecordKey.model_validate(row.key).conditions() for row in (one, other)]
    return None if conditions[0] == conditions[1] else min(one, other, key=lambda row: row.created_at)

"""The current suites, the records of checkpoints on them, and requests for records that are missing or outdated."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Select, and_, exists, select
from sqlalchemy.orm import Session

from ratchet.errors import PreconditionFailed
from ratchet.evaluation.record import RecordKey
from ratchet.events.catalogue import EvaluationRequested
from ratchet.ledger.deployments import champion
from ratchet.ledger.ledger import Transaction
from ratchet.ledger.pending import lacks_verdict
from ratchet.ledger.tables import CheckpointRow, EvaluationRequestRow, EvaluationRow, SuiteRow

_CHUNK = 500

ALWAYS_TESTED = ("probe", "eval")
"""Pools that every checkpoint is tested on; ``confirm`` is tested only on request."""


def current(session: Session, pool: str) -> SuiteRow:
    """The current suite of the pool."""
    query = select(SuiteRow).where(SuiteRow.pool == pool, SuiteRow.retired_at.is_(None))
    row = session.scalar(query.order_by(SuiteRow.ordinal.desc()).limit(1))
    if row is None:
        raise PreconditionFailed(f"there is no {pool} suite yet: `ratchet run` builds the suites.")
    return row


def suite_named(session: Session, name: str) -> SuiteRow:
    """The suite that a user names by its pool (the current suite) or by the beginning of its id.

    Raises PreconditionFailed unless exactly one matches.
    """
    if name in (*ALWAYS_TESTED, "confirm"):
        return current(session, name)
    fitting = select(SuiteRow).where(SuiteRow.id.startswith(name, autoescape=True)).limit(2)
    rows = session.scalars(fitting).all() if len(name) >= 4 else []
    if len(rows) != 1:
        raise PreconditionFailed(
            f"{'no suite' if not rows else 'more than one suite'} begins with {name!r}: see `ratchet show suites`."
        )
    return rows[0]


def evaluation(session: Session, checkpoint_id: str, suite_id: str) -> EvaluationRow | None:
    """The checkpoint's record on that suite, if testing has made it."""
    query = select(EvaluationRow).where(
        EvaluationRow.checkpoint_id == checkpoint_id, EvaluationRow.suite_id == suite_id
    )
    return session.scalar(query)


def evaluations(session: Session, checkpoint_ids: Sequence[str], suite_id: str) -> list[EvaluationRow]:
    """The records of these checkpoints on that suite, in no order; checkpoints without one are left out."""
    found: list[EvaluationRow] = []
    for start in range(0, len(checkpoint_ids), _CHUNK):
        some = checkpoint_ids[start : start + _CHUNK]
        query = select(EvaluationRow).where(EvaluationRow.suite_id == suite_id, EvaluationRow.checkpoint_id.in_(some))
        found += session.scalars(query)
    return found


def best_before(session: Session, baseline: EvaluationRow, ordinal: int) -> tuple[EvaluationRow, ...]:
    """Candidates for the best record of older checkpoints, made under the baseline's conditions on its suite.

    These are the record with the highest selection score (the newest if several tie), and those without a score in the
    ledger. So a single record needs to be read, regardless of the length of the lineage.
    """
    score = EvaluationRow.tally["selection_score"].as_float()
    query = select(EvaluationRow).join(CheckpointRow, CheckpointRow.id == EvaluationRow.checkpoint_id)
    query = query.where(
        EvaluationRow.suite_id == baseline.suite_id, CheckpointRow.state != "broken", CheckpointRow.ordinal < ordinal
    )
    query = query.where(made_like(baseline))
    best = query.where(score.is_not(None)).order_by(score.desc(), CheckpointRow.ordinal.desc()).limit(1)
    unscored = query.where(score.is_(None)).order_by(CheckpointRow.ordinal.desc())
    return (*session.scalars(best), *session.scalars(unscored))


def made_like(record: EvaluationRow) -> ColumnElement[bool]:
    """An SQL condition on evaluations: made under the conditions of this record, of any weights."""
    conditions = RecordKey.model_validate(record.key).conditions()
    return and_(*(EvaluationRow.key[name].as_string() == value for name, value in conditions.items()))


def request_evaluation(
    tx: Transaction, checkpoint_id: str, suite_id: str, who: str, beside: str, *, is_damaged: bool = False
) -> None:
    """Request a record to be compared with that of the checkpoint ``beside``, and emit an event. Idempotent.

    Does nothing if there is a comparable record, unless it ``is_damaged``. A record that is not comparable is dropped
    and made again under current conditions; its items stay in the artifact store.
    """
    record, other = (evaluation(tx.session, name, suite_id) for name in (checkpoint_id, beside))
    if record is not None and not is_damaged and (other is None or outdated_record(record, other) is not record):
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


def undecided(session: Session) -> list[str]:
    """Trained checkpoints newer than the champion that testing has a record of, and deployment has not decided on.

    The record may be on a retired suite: suites can be renewed again before a checkpoint is tested on the last ones.
    """
    query = select(CheckpointRow.id).where(
        CheckpointRow.state == "saved",
        CheckpointRow.ordinal > champion(session).ordinal,
        exists().where(EvaluationRow.checkpoint_id == CheckpointRow.id),
        lacks_verdict("deployment", "checkpoint", CheckpointRow.id),
    )
    return list(session.scalars(query.order_by(CheckpointRow.ordinal)))


def request_on_current(tx: Transaction, checkpoint_id: str, who: str) -> None:
    """Request the records on the current suites that every checkpoint is tested on, to be compared with the champion's.
    Idempotent.
    """
    holder = champion(tx.session).id
    for pool in ALWAYS_TESTED:
        request_evaluation(tx, checkpoint_id, current(tx.session, pool).id, who, holder)


def unanswered_requests() -> Select[EvaluationRequestRow]:
    """The requests on current suites whose record is still missing; the others stay in the table."""
    is_current = exists().where(SuiteRow.id == EvaluationRequestRow.suite_id, SuiteRow.retired_at.is_(None))
    answer = exists().where(
        EvaluationRow.checkpoint_id == EvaluationRequestRow.checkpoint_id,
        EvaluationRow.suite_id == EvaluationRequestRow.suite_id,
    )
    return select(EvaluationRequestRow).where(is_current, ~answer)


def outdated_record(one: EvaluationRow, other: EvaluationRow) -> EvaluationRow | None:
    """The older of two records on one suite made under different conditions; None where they can be compared."""
    conditions = [RecordKey.model_validate(row.key).conditions() for row in (one, other)]
    return None if conditions[0] == conditions[1] else min(one, other, key=lambda row: row.created_at)

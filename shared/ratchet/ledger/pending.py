"""Queries for a system's pending subjects, which lack its verdict, and since when they wait.

It does not know the systems; each declares which of ``QUERIES`` applies to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, func, not_, select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import BatchRow, CheckpointRow, DeadLetterRow, EvaluationRow, SuiteRow, VerdictRow

_CHUNK = 1_000
"""Ids in one query. SQLite accepts 32,766 values, PostgreSQL 65,535."""


def lacks_verdict(system: str, kind: str, subject_id: Any) -> ColumnElement[bool]:
    """An SQL condition: no verdict of that system on that subject, and no open dead letter.

    ``subject_id`` is a column or expression of the enclosing query.
    """
    decided = exists().where(
        and_(VerdictRow.system == system, VerdictRow.subject_kind == kind, VerdictRow.subject_id == subject_id)
    )
    dead = exists().where(
        and_(
            DeadLetterRow.system == system,
            DeadLetterRow.subject_kind == kind,
            DeadLetterRow.subject_id == subject_id,
            DeadLetterRow.resolved_at.is_(None),
        )
    )
    return and_(not_(decided), not_(dead))


def settled(session: Session, system: str, subjects: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of the (kind, id) pairs that have a verdict of the system or an open dead letter."""
    wanted = set(subjects)
    ids = sorted({subject_id for _, subject_id in wanted})
    found: set[tuple[str, str]] = set()
    for start in range(0, len(ids), _CHUNK):
        some = ids[start : start + _CHUNK]
        verdicts = select(VerdictRow.subject_kind, VerdictRow.subject_id).where(
            VerdictRow.system == system, VerdictRow.subject_id.in_(some)
        )
        dead = select(DeadLetterRow.subject_kind, DeadLetterRow.subject_id).where(
            DeadLetterRow.system == system, DeadLetterRow.subject_id.in_(some), DeadLetterRow.resolved_at.is_(None)
        )
        found.update((kind, subject_id) for query in (verdicts, dead) for kind, subject_id in session.execute(query))
    return found & wanted


Waiting = Select[Any]
"""Selects, for each subject without a system's verdict, since when it waits (epoch seconds)."""


def _saved(system: str) -> Waiting:
    return select(CheckpointRow.created_at).where(
        CheckpointRow.state == "saved", lacks_verdict(system, "checkpoint", CheckpointRow.id)
    )


def _evaluated(system: str, pool: str, *, trained_only: bool = False) -> Waiting:
    """Checkpoints with a record on the pool's current suite, waiting since that record was made."""
    query = select(EvaluationRow.created_at).join(SuiteRow, SuiteRow.id == EvaluationRow.suite_id)
    query = query.join(CheckpointRow, CheckpointRow.id == EvaluationRow.checkpoint_id)
    return query.where(
        SuiteRow.pool == pool,
        SuiteRow.retired_at.is_(None),
        CheckpointRow.state != "broken",
        CheckpointRow.ordinal >= int(trained_only),
        lacks_verdict(system, "checkpoint", CheckpointRow.id),
    )


def _submitted(system: str) -> Waiting:
    """Batches before the data gate."""
    return select(BatchRow.submitted_at).where(
        BatchRow.state == "submitted", lacks_verdict(system, "batch", BatchRow.id)
    )


def _admitted(system: str) -> Waiting:
    """Batches that have passed the data gate on their way to training."""
    return select(BatchRow.queued_at).where(
        BatchRow.artifact.is_not(None), BatchRow.task.is_(None), lacks_verdict(system, "batch", BatchRow.id)
    )


def _queued(system: str) -> Waiting:
    """Batches that wait for training or are under way."""
    return select(BatchRow.queued_at).where(
        BatchRow.state.in_(("queued", "training")), lacks_verdict(system, "batch", BatchRow.id)
    )


QUERIES: dict[str, Callable[[str], Waiting]] = {
    "saved checkpoints": _saved,
    "eval records": lambda system: _evaluated(system, "eval"),
    "eval records of trained checkpoints": lambda system: _evaluated(system, "eval", trained_only=True),
    "probe records": lambda system: _evaluated(system, "probe"),
    "submitted batches": _submitted,
    "admitted batches": _admitted,
    "queued batches": _queued,
}
"""By the name that a declaration uses (``System.pending``)."""


def oldest(session: Session, waiting: Waiting) -> tuple[float | None, int]:
    """Since when the first of these subjects waits (None if there is none), and how many do."""
    since = waiting.subquery()
    first, count = session.execute(select(func.min(since.c[0]), func.count()).select_from(since)).one()
    return first, int(count)

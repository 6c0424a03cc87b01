"""The lineage of checkpoints that training continues: its head, its ancestry, and how checkpoints are named.

There is one lineage. It does not know which checkpoint is served; that is `ratchet.ledger.deployments`.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from ratchet.errors import PreconditionFailed
from ratchet.ledger.tables import CheckpointRow, EvaluationRow, LineageRow, VerdictRow

MAIN = "main"


def lineage(session: Session) -> LineageRow:
    """The lineage. Raises PreconditionFailed before the first run."""
    row = session.get(LineageRow, MAIN)
    if row is None:
        raise PreconditionFailed("this ledger is not set up yet: `ratchet run` does it.")
    return row


def head(session: Session) -> CheckpointRow:
    """The checkpoint that the next training segment starts from."""
    return session.get_one(CheckpointRow, lineage(session).head_id)


def adapter_base(session: Session) -> CheckpointRow | None:
    """The checkpoint that the lineage's adapters are trained on top of; None where all weights are trained."""
    main = lineage(session)
    return session.get(CheckpointRow, main.adapter_base_id) if main.adapter_base_id is not None else None


def ancestry(session: Session, checkpoint_id: str) -> Iterator[CheckpointRow]:
    """The checkpoint and its parents, the newest first."""
    current: str | None = checkpoint_id
    while current is not None:
        checkpoint = session.get_one(CheckpointRow, current)
        yield checkpoint
        current = checkpoint.parent_id


def next_ordinal(session: Session) -> int:
    newest = session.scalar(select(func.max(CheckpointRow.ordinal)))
    return 0 if newest is None else newest + 1


def checkpoint_id(ordinal: int, weights: str) -> str:
    """``c0007-3fa9c2``: its ordinal and the beginning of its weights' digest."""
    return f"c{ordinal:04d}-{weights[:6]}"


def unjudged(session: Session) -> int:
    """Saved checkpoints that are newer than any that testing has given its verdict on.

    Older ones are left out: testing takes the newest first, so a skipped or dead-lettered checkpoint does not show
    whether testing runs.
    """
    judged = exists().where(
        VerdictRow.system == "testing",
        VerdictRow.subject_kind == "checkpoint",
        VerdictRow.subject_id == CheckpointRow.id,
    )
    newest = session.scalar(select(CheckpointRow.ordinal).where(judged).order_by(CheckpointRow.ordinal.desc()).limit(1))
    query = select(func.count()).select_from(CheckpointRow).where(CheckpointRow.state == "saved")
    return session.scalar(query.where(CheckpointRow.ordinal > (-1 if newest is None else newest))) or 0


def newest_evaluated(session: Session, pool: str) -> CheckpointRow | None:
    """The newest checkpoint that has a record on a suite of the pool."""
    evaluated = select(EvaluationRow.checkpoint_id).where(EvaluationRow.pool == pool)
    query = select(CheckpointRow).where(CheckpointRow.id.in_(evaluated), CheckpointRow.state == "saved")
    return session.scalar(query.order_by(CheckpointRow.ordinal.desc()).limit(1))

"""The line of training and the champion: the two checkpoints that everything turns around."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from ratchet.errors import PreconditionFailed
from ratchet.ledger.tables import Checkpoint, Evaluation, Line, Serving, Verdict

MAIN = "main"


def line(session: Session) -> Line:
    """The line of training. Raises PreconditionFailed before the first run."""
    row = session.get(Line, MAIN)
    if row is None:
        raise PreconditionFailed("nothing has been set up here yet: `ratchet run` does it.")
    return row


def serving(session: Session) -> Serving:
    """Desired and actual deployment. Raises PreconditionFailed before the first run."""
    row = session.get(Serving, MAIN)
    if row is None:
        raise PreconditionFailed("nothing has been set up here yet: `ratchet run` does it.")
    return row


def champion(session: Session) -> Checkpoint:
    """The checkpoint that is to be live."""
    return session.get_one(Checkpoint, serving(session).desired_id)


def head(session: Session) -> Checkpoint:
    """The checkpoint that the next training segment starts from."""
    return session.get_one(Checkpoint, line(session).head_id)


def adapter_base(session: Session) -> Checkpoint | None:
    """The checkpoint that the line's adapters stand on; None where all weights are trained."""
    main = line(session)
    return session.get(Checkpoint, main.adapter_base_id) if main.adapter_base_id is not None else None


def ancestry(session: Session, checkpoint_id: str) -> Iterator[Checkpoint]:
    """The checkpoint and its parents, the newest first."""
    current: str | None = checkpoint_id
    while current is not None:
        checkpoint = session.get_one(Checkpoint, current)
        yield checkpoint
        current = checkpoint.parent_id


def next_ordinal(session: Session) -> int:
    newest = session.scalar(select(func.max(Checkpoint.ordinal)))
    return 0 if newest is None else newest + 1


def checkpoint_id(ordinal: int, weights: str) -> str:
    """``c0007-3fa9c2``: its place in the line, and the beginning of its weights' digest."""
    return f"c{ordinal:04d}-{weights[:6]}"


def unjudged(session: Session) -> int:
    """Saved checkpoints that are newer than any that testing has given its verdict on.

    Older ones are left out: testing takes the newest first, and one that it gave up (a dead letter) or skipped says
    nothing of whether the judges are there.
    """
    judged = exists().where(
        Verdict.system == "testing", Verdict.subject_kind == "checkpoint", Verdict.subject_id == Checkpoint.id
    )
    newest = session.scalar(select(Checkpoint.ordinal).where(judged).order_by(Checkpoint.ordinal.desc()).limit(1))
    query = select(func.count()).select_from(Checkpoint).where(Checkpoint.state == "saved")
    return session.scalar(query.where(Checkpoint.ordinal > (-1 if newest is None else newest))) or 0


def newest_evaluated(session: Session, pool: str) -> Checkpoint | None:
    """The newest checkpoint that has a record on a suite of the pool."""
    evaluated = select(Evaluation.checkpoint_id).where(Evaluation.pool == pool)
    query = select(Checkpoint).where(Checkpoint.id.in_(evaluated), Checkpoint.state == "saved")
    return session.scalar(query.order_by(Checkpoint.ordinal.desc()).limit(1))

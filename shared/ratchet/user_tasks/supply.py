"""How long a user's task is taught: passes over its rows, then corrections, until neither helps any more.

A task's training rows are its stored batches. The probe record says whether training on them helps: the loss of the
reference answers and, where answers are checked, how many are right. Nothing here makes a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.data.example import Example
from ratchet.ledger.lineage import unjudged
from ratchet.ledger.pending import lacks_verdict
from ratchet.ledger.queue import GATE, depth
from ratchet.ledger.tables import BatchRow, TaskRow
from ratchet.settings import Settings
from ratchet.user_tasks.task import all_tasks

if TYPE_CHECKING:
    from ratchet.artifacts import ArtifactStore

STORED = "stored"
"""State of a batch whose rows are training rows of a task."""

ACTIVE, USED_UP = "active", "used_up"

PATIENCE = 3
"""Checkpoints without a new best on the probe after which plain passes end. One or two may be chance."""

CORRECTION_PATIENCE = 6
"""Checkpoints without a new best after which corrections end, too: as many again as the passes had."""

MOST_PASSES = 20
"""Passes over a task's rows after which plain passes end in any case: a model that still gains has learnt them by heart
before."""


def passes_over(task: TaskRow) -> str | None:
    """Why no more plain passes are made over the task's rows; None while they are."""
    if task.stale >= PATIENCE:
        return f"the last {task.stale} checkpoints were no better on its probe rows"
    if task.passes >= MOST_PASSES:
        return f"each of its rows has been taught {task.passes:.0f} times"
    return None


def corrections_over(task: TaskRow) -> bool:
    """Whether corrections of the task have stopped helping, too."""
    return task.state == USED_UP or task.stale >= CORRECTION_PATIENCE


def are_passes_left(session: Session) -> bool:
    """Whether a task with training rows is to be passed over again."""
    with_rows = set(session.scalars(select(BatchRow.task).where(BatchRow.state == STORED).distinct()))
    return any(task.name in with_rows and passes_over(task) is None for task in all_tasks(session, "user"))


def stored_batches(session: Session, task: str) -> list[BatchRow]:
    """The batches of the task's training rows, the oldest first."""
    query = select(BatchRow).where(BatchRow.task == task, BatchRow.state == STORED)
    return list(session.scalars(query.order_by(BatchRow.submitted_at, BatchRow.id)))


def count_stored(session: Session, task: str) -> int:
    """How many batches the task's training rows are in, without reading them."""
    query = select(func.count()).select_from(BatchRow).where(BatchRow.task == task, BatchRow.state == STORED)
    return session.scalar(query) or 0


def stored_lines(artifacts: ArtifactStore, batches: Iterable[BatchRow]) -> Iterator[str]:
    """The rows of stored batches as lines of JSON, in a fixed order."""
    for batch in batches:
        assert batch.artifact is not None, "a stored batch has passed the data gate"
        yield from artifacts.open_lines(batch.artifact)


def stored_rows(artifacts: ArtifactStore, batches: Iterable[BatchRow]) -> Iterator[Example]:
    """As ``stored_lines``, read as examples."""
    return map(Example.model_validate_json, stored_lines(artifacts, batches))


def are_all_used_up(session: Session, settings: Settings) -> bool:
    """Whether nothing is left to train on: every task is used up, no family is taught, and nothing is on its way."""
    tasks = all_tasks(session, "user")
    if settings.suites.families or not tasks or any(task.state != USED_UP for task in tasks):
        return False
    at_gate = select(func.count()).select_from(BatchRow)
    at_gate = at_gate.where(BatchRow.state == "submitted", lacks_verdict(GATE, "batch", BatchRow.id))
    return not session.scalar(at_gate) and not depth(session).total and not unjudged(session)

"""The tasks as the command line and the pages list them: rows, held-out rows, passes, and what ends when."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import BatchRow, CheckpointRow, TaskRow
from ratchet.user_tasks.supply import CORRECTION_PATIENCE, MOST_PASSES, PATIENCE, USED_UP, passes_over
from ratchet.user_tasks.task import all_tasks


@dataclass(frozen=True)
class TaskLine:
    """A task with the number of rows that have passed the data gate for it, and that of its best checkpoint."""

    row: TaskRow
    training_rows: int
    best: int | None

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def grader(self) -> str:
        return self.row.grader or ("by row" if self.row.metric == "accuracy" else "")

    @property
    def state(self) -> str:
        return self.row.state.replace("_", " ")

    @property
    def outlook(self) -> str:
        return outlook(self.row, self.training_rows)


def task_lines(session: Session) -> list[TaskLine]:
    """All tasks, the oldest first."""
    return _lines(session, all_tasks(session))


def task_line(session: Session, row: TaskRow) -> TaskLine:
    return _lines(session, [row])[0]


def _lines(session: Session, rows: list[TaskRow]) -> list[TaskLine]:
    names = [row.name for row in rows]
    taught = select(BatchRow.task, func.sum(BatchRow.examples)).where(BatchRow.task.in_(names)).group_by(BatchRow.task)
    stored = {str(task): int(count or 0) for task, count in session.execute(taught)}
    best = select(CheckpointRow.id, CheckpointRow.ordinal).where(CheckpointRow.id.in_([row.best_id for row in rows]))
    ordinals = {str(found): int(ordinal) for found, ordinal in session.execute(best)}
    return [TaskLine(row, stored.get(row.name, 0), ordinals.get(row.best_id or "")) for row in rows]


def outlook(task: TaskRow, training_rows: int) -> str:
    """What happens with the task's rows next, and what ends when."""
    if task.kind != "user":
        return "It holds what the model could do before. It is mixed into batches, and never used up."
    if task.state == USED_UP:
        return task.reason or "Neither passes nor corrections help any more. Add rows, or change how it is judged."
    if not training_rows:
        return "No row has passed the data gate yet."
    over = passes_over(task)
    if over is None:
        return (
            f"Passes end once {PATIENCE} checkpoints in a row are no better on its probe rows ({task.stale} so far), "
            f"or after {MOST_PASSES} passes ({task.passes:.3g} so far)."
        )
    return (
        f"Passes have ended: {over}. Corrections of its mistakes end once {CORRECTION_PATIENCE} checkpoints in a row "
        f"are no better ({task.stale} so far)."
    )

"""A task as a value, and the tasks of a ledger.

A task is a user's data set under a name, which is the family of its rows and held-out items (at level 1). The general
prompts of a pretrained model are a task of their own kind, which protects what the model can do already.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.data.example import Example
from ratchet.errors import DataError, PreconditionFailed
from ratchet.evaluation.record import GENERAL, Metric
from ratchet.ledger.tables import TaskRow
from ratchet.tasks import registry
from ratchet.tasks.graders import gold, suggest_grader

Kind = Literal["user", "general"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Task(BaseModel):
    """How rows of a data set are graded and compared. ``grader`` and ``pattern`` are for the metric accuracy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Kind = "user"
    metric: Metric
    grader: str | None = None
    pattern: str | None = None
    protected: bool = True
    version: int = Field(0, ge=0)

    @classmethod
    def of(cls, row: TaskRow) -> Task:
        return cls.model_validate({field: getattr(row, field) for field in cls.model_fields})

    def labelled(self, row: Example) -> Example:
        """The row as one of this task: with its family, its metric, and the grader that the task declares."""
        metadata = {key: value for key, value in row.metadata.items() if key != "metric"}
        metadata |= {"family": self.name, "level": 1}
        if self.metric != "accuracy":
            metadata["metric"] = self.metric
        elif self.grader is not None:
            metadata |= {"grader": self.grader, **({"pattern": self.pattern} if self.pattern is not None else {})}
        elif "grader" not in metadata and row.answer is not None:
            metadata["grader"] = suggest_grader(gold(row))
        return row.model_copy(update={"metadata": metadata})


def require_name(name: str) -> None:
    """Raise DataError for a name that cannot be a task's."""
    if not _NAME.fullmatch(name):
        raise DataError(
            f"{name!r} is no name for a task: use up to 63 small letters, digits, dots, dashes and underscores."
        )
    if name == GENERAL or registry.find(name) is not None:
        raise DataError(f"{name!r} is a name of Ratchet's own; choose another one for the task.")


def name_of_file(stem: str) -> str:
    """A name for the task of a file: its stem in small letters, with a dash for everything else."""
    return re.sub(r"[^a-z0-9._]+", "-", stem.casefold()).strip("-._")[:63].rstrip("-._") or "task"


def all_tasks(session: Session, kind: Kind | None = None) -> list[TaskRow]:
    """The tasks of the ledger, the oldest first."""
    query = select(TaskRow).order_by(TaskRow.created_at, TaskRow.name)
    return list(session.scalars(query if kind is None else query.where(TaskRow.kind == kind)))


def get_task(session: Session, name: str) -> TaskRow:
    """The task of this name. Raises PreconditionFailed, naming the known ones."""
    row = session.get(TaskRow, name)
    if row is None:
        known = ", ".join(task.name for task in all_tasks(session, "user")) or "none yet"
        raise PreconditionFailed(
            f"there is no task {name!r}; tasks: {known}. `ratchet data add FILE --task NAME` adds one."
        )
    return row

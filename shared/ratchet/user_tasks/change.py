"""What a person decides about a task, checked: the choices for new rows, and changes of how a known task is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, get_args

from ratchet.errors import PreconditionFailed
from ratchet.evaluation.record import Metric
from ratchet.ledger import Ledger
from ratchet.ledger.tables import TaskRow
from ratchet.settings import Settings
from ratchet.tasks.graders import declared_graders
from ratchet.user_tasks.add import Choice
from ratchet.user_tasks.suites import renew_suites
from ratchet.user_tasks.supply import ACTIVE
from ratchet.user_tasks.task import get_task

if TYPE_CHECKING:
    from ratchet.artifacts import ArtifactStore

WOKEN = ("testing", "generation")
"""Systems that have something to do after a change."""


def make_choice(task: str | None, metric: str | None, grader: str | None, pattern: str | None) -> Choice:
    """The options of a command or form. Raises PreconditionFailed for an unknown metric or grader."""
    if metric is not None and metric not in get_args(Metric):
        raise PreconditionFailed(f"--metric {metric} is not one of {', '.join(get_args(Metric))}.")
    if grader is not None and grader not in declared_graders():
        raise PreconditionFailed(f"--grader {grader} is not one of {', '.join(declared_graders())}.")
    if (grader == "regex") != (pattern is not None):
        raise PreconditionFailed("--grader regex and --pattern belong together.")
    return Choice(task=task, metric=cast("Metric | None", metric), grader=grader, pattern=pattern)


def change_task(
    settings: Settings, ledger: Ledger, artifacts: ArtifactStore, name: str, choice: Choice, protected: bool | None
) -> TaskRow:
    """Change how a task is judged, and renew the suites; returns the task.

    With another metric or grader its progress is measured anew, also where it was used up. Raises PreconditionFailed
    for a task that is not the user's.
    """
    with ledger.write() as tx:
        row = get_task(tx.session, name)
        if row.kind != "user":
            raise PreconditionFailed(f"the task {name} belongs to Ratchet; its metric stays.")
        told = {field: getattr(choice, field) for field in ("metric", "grader", "pattern")}
        changed = {field: value for field, value in told.items() if value not in (None, getattr(row, field))}
        for field, value in changed.items():
            setattr(row, field, value)
        if changed:
            row.best_id, row.stale, row.state, row.reason = None, 0, ACTIVE, ""
        if protected is not None:
            row.protected = protected
        row.updated_at = tx.now
        row.version += 1
    renew_suites(settings, ledger, artifacts)
    return row


def in_words(task: TaskRow) -> str:
    """How the task is judged."""
    return f"the task {task.name} is judged by {task.metric}{f', grader {task.grader}' if task.grader else ''}."

"""Whether a checkpoint is the best so far on a user's task, by its probe items, paired with those of the best before.

Two signals count: the score of the task's own metric, and the loss of the reference answers, which changes more
smoothly than what is right or wrong. Passes over a task end when neither has improved for a while
(ratchet.user_tasks.supply). Without a common item, as after a change of the metric, the checkpoint is a new start.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict
from ratchet.artifacts import ArtifactStore
from ratchet.evaluation.load_evaluation import load_if_intact
from ratchet.evaluation.record import ItemRecord
from ratchet.ledger import Transaction
from ratchet.ledger.suites import current, evaluation
from ratchet.ledger.tables import BatchRow, CheckpointRow, EvaluationRow, TaskRow
from ratchet.user_tasks.task import all_tasks
from sqlalchemy import select
from sqlalchemy.orm import Session


class TaskMeasure(BaseModel):
    """How a checkpoint compares with the best before on ``items`` of a task; gains are means, and 0 for the first.

    ``is_best``: it is better by more than noise. ``was_taught``: its batch had rows of the task.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    items: int
    is_best: bool
    was_taught: bool
    score_gain: float = 0.0
    loss_fall: float = 0.0


class Gain(NamedTuple):
    """The mean of paired differences and its standard error."""

    mean: float
    error: float

    @property
    def is_clear(self) -> bool:
        """Whether it is above 0 by more than its standard error."""
        return self.mean > self.error

    @property
    def is_clear_loss(self) -> bool:
        return -self.mean > self.error


def gain_of(differences: Sequence[float]) -> Gain:
    """None is known of fewer than two pairs: an infinite error."""
    n = len(differences)
    if n < 2:
        return Gain(0.0, math.inf)
    mean = math.fsum(differences) / n
    variance = math.fsum((each - mean) ** 2 for each in differences) / (n - 1)
    return Gain(mean, math.sqrt(variance / n))


def common(best: Mapping[str, ItemRecord], now: Mapping[str, ItemRecord]) -> list[tuple[ItemRecord, ItemRecord]]:
    """The items that both have, by key, and measured by the same metric: its scores mean nothing beside another's."""
    pairs = ((best[key], item) for key, item in now.items() if key in best)
    return [(before, after) for before, after in pairs if before.metric == after.metric]


def compare(best: Mapping[str, ItemRecord], now: Mapping[str, ItemRecord]) -> tuple[Gain, Gain]:
    """The gain in score, and the fall of the loss, over the items that both have."""
    pairs = common(best, now)
    scores = [(a.score, b.score) for a, b in pairs]
    losses = [(a.gold_nll, b.gold_nll) for a, b in pairs]
    return (
        gain_of([b - a for a, b in scores if a is not None and b is not None]),
        gain_of([a - b for a, b in losses if a is not None and b is not None]),
    )


def is_better(score: Gain, loss_fall: Gain) -> bool:
    """Better by its score, or by its loss where the score has not fallen."""
    return score.is_clear or (loss_fall.is_clear and not score.is_clear_loss)


def measure_tasks(session: Session, artifacts: ArtifactStore, checkpoint_id: str) -> list[TaskMeasure]:
    """The checkpoint on every user's task that its probe record holds items of."""
    record = _items(session, artifacts, checkpoint_id)
    taught = _taught(session, checkpoint_id)
    measures = []
    for task in all_tasks(session, "user"):
        now = record.get(task.name, {})
        best = _items(session, artifacts, task.best_id).get(task.name, {}) if task.best_id else {}
        if not now:
            continue
        items = len(common(best, now))
        if not items:
            measures.append(TaskMeasure(task=task.name, items=len(now), is_best=True, was_taught=task.name in taught))
            continue
        score, loss_fall = compare(best, now)
        measures.append(
            TaskMeasure(
                task=task.name,
                items=items,
                is_best=is_better(score, loss_fall),
                was_taught=task.name in taught,
                score_gain=score.mean,
                loss_fall=loss_fall.mean,
            )
        )
    return measures


def record_measures(tx: Transaction, checkpoint_id: str, measures: Sequence[TaskMeasure]) -> None:
    """Remember the best checkpoint of each task, or that one more was no better."""
    for measure in measures:
        task = tx.session.get(TaskRow, measure.task)
        if task is None:
            continue
        if measure.is_best:
            task.best_id, task.stale = checkpoint_id, 0
        elif measure.was_taught:
            task.stale += 1


def words(measures: Sequence[TaskMeasure]) -> str:
    return "; ".join(f"{m.task}: {'the best so far' if m.is_best else 'no better than before'}" for m in measures)


def _items(session: Session, artifacts: ArtifactStore, checkpoint_id: str) -> dict[str, dict[str, ItemRecord]]:
    """The checkpoint's probe items by family and key: of the suite in force, else of its newest record."""
    row = evaluation(session, checkpoint_id, current(session, "probe").id)
    if row is None:
        query = select(EvaluationRow).where(EvaluationRow.checkpoint_id == checkpoint_id, EvaluationRow.pool == "probe")
        row = session.scalar(query.order_by(EvaluationRow.created_at.desc()).limit(1))
    found = load_if_intact(artifacts, row) if row is not None else None
    families: dict[str, dict[str, ItemRecord]] = {}
    for item in found.items if found is not None else ():
        families.setdefault(item.family, {})[item.key] = item
    return families


def _taught(session: Session, checkpoint_id: str) -> set[str]:
    """The tasks whose rows the checkpoint's batch taught."""
    batch_id = session.get_one(CheckpointRow, checkpoint_id).batch_id
    batch = session.get(BatchRow, batch_id) if batch_id else None
    provenance: Mapping[str, Any] = batch.provenance if batch is not None else {}
    return {*provenance.get("tasks", {}), *(cell.rpartition("/")[0] for cell in provenance.get("cells", ()))}

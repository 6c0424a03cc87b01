"""Learning curves on the eval suite over the steps of training: right answers by task or level, losses by task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.evaluation.record import overall_rate, rates_from_json, scores_from_json
from ratchet.ledger.tables import CheckpointRow, DeploymentRow, EvaluationRow
from ratchet.views.reading import SHOWN_POOL

By = Literal["family", "level", "loss", "train_loss"]
"""Right answers (and preferences of a judge) in per cent by family or level; the loss of tasks that are measured by
it, and that of training, in nats per token."""

MOST_POINTS = 400
"""Of more checkpoints every n-th is shown, counted from the newest."""


@dataclass(frozen=True)
class Curves:
    """``series`` has a value a step, None where it was not measured. ``deployments``: step and number of each
    champion."""

    steps: Sequence[int]
    series: Mapping[str, Sequence[float | None]]
    deployments: Sequence[tuple[int, int]]


def learning_curves(session: Session, by: By = "family") -> Curves:
    """The curves of all checkpoints that have been tested (or trained, for the loss of training), the oldest first."""
    points = _trained(session) if by == "train_loss" else _tested(session, by)
    names = sorted({name for _, values in points for name in values})
    return Curves(
        steps=[step for step, _ in points],
        series={name: [values.get(name) for _, values in points] for name in names},
        deployments=_deployments(session),
    )


Point = tuple[int, Mapping[str, float]]


def _trained(session: Session) -> list[Point]:
    query = select(CheckpointRow.step, CheckpointRow.train_loss).where(CheckpointRow.train_loss.is_not(None))
    rows = session.execute(query.order_by(CheckpointRow.ordinal)).all()
    finite = [(step, loss) for step, loss in rows if loss is not None and math.isfinite(loss)]  # PostgreSQL keeps a NaN
    return [(step, {"training": loss}) for step, loss in _thinned(finite)]


def _tested(session: Session, by: By) -> list[Point]:
    query = select(EvaluationRow.id, CheckpointRow.step, CheckpointRow.ordinal)
    query = query.join(CheckpointRow, CheckpointRow.id == EvaluationRow.checkpoint_id)
    query = query.where(EvaluationRow.pool == SHOWN_POOL).order_by(CheckpointRow.ordinal, EvaluationRow.created_at)
    newest = {ordinal: (step, record) for record, step, ordinal in session.execute(query)}  # on the newest suite
    records = _Records(session)
    return [(step, records.values(record)[by]) for step, record in _thinned(list(newest.values()))]


def _thinned(points: Sequence[Any]) -> list[Any]:
    apart = max(1, -(-len(points) // MOST_POINTS))
    return list(points[::-1][::apart][::-1])


class _Records:
    """The measured values of records, which never change and so are read once."""

    _known: ClassVar[dict[str, dict[By, Mapping[str, float]]]] = {}

    def __init__(self, session: Session):
        self._session = session

    def values(self, record: str) -> dict[By, Mapping[str, float]]:
        found = self._known.get(record)
        if found is None:
            columns = select(EvaluationRow.by_level, EvaluationRow.scores).where(EvaluationRow.id == record)
            found = self._known[record] = _measured(*self._session.execute(columns).one())
            while len(self._known) > 4 * MOST_POINTS:
                self._known.pop(next(iter(self._known)), None)
        return found


def _measured(by_level: Mapping[str, Any], scores: Mapping[str, Any] | None) -> dict[By, Mapping[str, float]]:
    levels = rates_from_json(by_level)
    families: dict[str, float] = {}
    for family in {family for family, _ in levels}:
        rate = overall_rate({key: rate for key, rate in levels.items() if key[0] == family})
        families[family] = 100 * rate.value if rate is not None else 0.0
    by_task = scores_from_json(scores)
    preferred = {name: 100 * score.mean for name, score in by_task.items() if score.metric == "judge"}
    return {
        "family": families | preferred,
        "level": {f"{family} {level}": 100 * rate.value for (family, level), rate in levels.items()},
        "loss": {name: score.mean for name, score in by_task.items() if score.metric == "loss"},
    }


def _deployments(session: Session) -> list[tuple[int, int]]:
    query = select(CheckpointRow.step, CheckpointRow.ordinal).join(
        DeploymentRow, DeploymentRow.checkpoint_id == CheckpointRow.id
    )
    rows = session.execute(query.where(DeploymentRow.action == "deploy").order_by(DeploymentRow.id))
    return [(step, ordinal) for step, ordinal in rows]

"""Checkpoints as a list: filtered, sorted and paged by the database, with their places in the newest ranking.

However many there are, only those of one page are read. The newest ranking, whose JSON has an entry for each, is read
once and kept until there is a newer one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, and_, case, cast, false, func, or_, select
from sqlalchemy.orm import Session, aliased

from ratchet.errors import PreconditionFailed
from ratchet.evaluation.record import Rate, TaskScore, overall_rate
from ratchet.ledger.tables import CheckpointRow, EvaluationRow, RankingRow, ServingRow, SuiteRow, VerdictRow
from ratchet.stats.proportions import Interval, wilson
from ratchet.views.reading import SHOWN_POOL, read_checkpoints, read_live
from ratchet.views.view_model import CheckpointView, status_text

STATUSES = {
    "live": "live",
    "open": "still judged",
    "deployed": "was live",
    "refused": "refused",
    "screened out": "screened out",
    "superseded": "superseded",
    "rolled back": "rolled back",
    "blocked": "blocked",
    "broken": "broken",
    "deleted": "files deleted",
    "base": "the base model",
}
"""What can be filtered by, with its words."""

SORTS = ("score", "number", "step", "loss")
"""Columns that the list can be sorted by."""


@dataclass(frozen=True)
class Filter:
    """Which checkpoints, measured on all tasks or on one, in which order. ``text`` is searched for in numbers, ids and
    reasons."""

    status: str = ""
    text: str = ""
    task: str = ""
    sort: str = "score"
    descending: bool = True

    def __post_init__(self) -> None:
        if self.status and self.status not in STATUSES:
            raise PreconditionFailed(f"there is no status {self.status!r}; there are: {', '.join(STATUSES)}.")
        if self.sort not in SORTS:
            raise PreconditionFailed(f"the list cannot be sorted by {self.sort!r}; it can by: {', '.join(SORTS)}.")


@dataclass(frozen=True, slots=True)
class RankingPlace:
    """A place in the newest ranking."""

    rank: int
    is_tied: bool


@dataclass(frozen=True)
class ListedCheckpoint:
    """A checkpoint with its measure on all tasks, or on the one that was asked for.

    ``rate`` is of graded items, ``scores`` of tasks with another metric. ``place`` is None where it was not compared
    with the others. ``reason`` is that of its deployment verdict, or of its breakage.
    """

    view: CheckpointView
    status: str
    rate: Rate | None
    scores: Mapping[str, TaskScore]
    place: RankingPlace | None
    reason: str

    @property
    def interval(self) -> Interval | None:
        """Of the rate (95 %, Wilson)."""
        return wilson(self.rate.correct, self.rate.n) if self.rate is not None else None


def list_checkpoints(session: Session, wanted: Filter, limit: int, offset: int) -> tuple[list[ListedCheckpoint], int]:
    """One page of the checkpoints that pass the filter, and how many pass it."""
    query = _Query(session, wanted)
    count = session.scalar(query.counted()) or 0
    found = session.execute(query.page(limit, offset)).all()
    reasons = {row.id: reason or row.reason for row, reason in found}
    live, places = read_live(session), ranking_places(session, wanted.task)
    views = read_checkpoints(session, [row for row, _ in found])
    return [
        ListedCheckpoint(
            view=view,
            status=status_text(view, live),
            rate=overall_rate({cell: rate for cell, rate in view.levels.items() if wanted.task in ("", cell[0])}),
            scores={name: score for name, score in view.scores.items() if wanted.task in ("", name)},
            place=places.get(view.id),
            reason=reasons[view.id],
        )
        for view in views
    ], count


def measured_tasks(session: Session) -> list[str]:
    """The families and tasks of the newest record on the eval suite."""
    query = select(EvaluationRow.by_level, EvaluationRow.scores).where(EvaluationRow.suite_id == _suite_id(session))
    newest = session.execute(query.order_by(EvaluationRow.created_at.desc()).limit(1)).first()
    return sorted({*newest.by_level, *(newest.scores or {})}) if newest is not None else []


class _Query:
    """Each checkpoint with its record on the current eval suite, and with what testing and deployment have decided."""

    def __init__(self, session: Session, wanted: Filter):
        self._wanted = wanted
        self._suite_id = _suite_id(session)
        self._desired_id = session.scalar(select(ServingRow.desired_id).limit(1)) or ""
        self._deployment, self._testing = aliased(VerdictRow), aliased(VerdictRow)

    def counted(self) -> Select[int]:
        query: Select[int] = self._filtered(select(func.count()).select_from(CheckpointRow))
        return query

    def page(self, limit: int, offset: int) -> Select[CheckpointRow, str]:
        query = self._filtered(select(CheckpointRow, self._deployment.reason))
        column = self._sort_column()
        ordered = column.desc() if self._wanted.descending else column.asc()
        best_first = query.order_by(ordered.nulls_last(), CheckpointRow.ordinal.desc())
        found: Select[CheckpointRow, str] = best_first.limit(limit).offset(offset)
        return found

    def _filtered(self, query: Any) -> Any:
        for verdict, system in ((self._deployment, "deployment"), (self._testing, "testing")):
            of_it = (verdict.subject_kind == "checkpoint", verdict.subject_id == CheckpointRow.id)
            query = query.outerjoin(verdict, and_(verdict.system == system, *of_it))
        of_suite = and_(EvaluationRow.checkpoint_id == CheckpointRow.id, EvaluationRow.suite_id == self._suite_id)
        query = query.outerjoin(EvaluationRow, of_suite)
        if self._wanted.status:
            query = query.where(self._status() == self._wanted.status)
        if self._wanted.text.strip():
            query = query.where(self._has_text(self._wanted.text.strip()))
        return query

    def _status(self) -> ColumnElement[str]:
        """The key of STATUSES, by the rules of view_model.status_text."""
        return case(
            (CheckpointRow.id == self._desired_id, "live"),
            (CheckpointRow.state != "saved", CheckpointRow.state),
            (self._deployment.outcome.is_not(None), self._deployment.outcome),
            (self._testing.outcome == "superseded", "superseded"),
            (CheckpointRow.ordinal == 0, "base"),
            else_="open",
        )

    def _has_text(self, text: str) -> ColumnElement[bool]:
        number = text.removeprefix("#")
        starts = (CheckpointRow.id, CheckpointRow.weights, CheckpointRow.batch_id)
        return or_(
            CheckpointRow.ordinal == int(number) if number.isdecimal() and len(number) < 10 else false(),
            *(column.startswith(text, autoescape=True) for column in starts),
            self._deployment.reason.icontains(text, autoescape=True),
            CheckpointRow.reason.icontains(text, autoescape=True),
        )

    def _sort_column(self) -> ColumnElement[Any]:
        task = self._wanted.task
        if self._wanted.sort == "score":
            if task:
                score: ColumnElement[Any] = EvaluationRow.tally["by_family"][task]["score"].as_float()
                return score
            rate = EvaluationRow.correct * 1.0 / func.nullif(EvaluationRow.items, 0)
            return func.coalesce(EvaluationRow.tally["score"].as_float(), rate)
        columns: dict[str, Any] = {
            "number": CheckpointRow.ordinal,
            "step": CheckpointRow.step,
            "loss": CheckpointRow.train_loss,
        }
        column: ColumnElement[Any] = columns[self._wanted.sort]
        return column


def _suite_id(session: Session) -> str:
    query = select(SuiteRow.id).where(SuiteRow.pool == SHOWN_POOL, SuiteRow.retired_at.is_(None))
    return session.scalar(query.order_by(SuiteRow.ordinal.desc()).limit(1)) or ""


_ranked: dict[tuple[int, float], dict[str, dict[str, RankingPlace]]] = {}
"""The newest ranking, by its number and time: places by task ("" for all together) and checkpoint."""


def ranking_places(session: Session, task: str = "") -> Mapping[str, RankingPlace]:
    """Places in the newest ranking, over all items or over those of one task; empty before the first."""
    newest = session.execute(
        select(RankingRow.id, RankingRow.created_at).order_by(RankingRow.id.desc()).limit(1)
    ).first()
    if newest is None:
        return {}
    key = (newest.id, newest.created_at)
    found = _ranked.get(key)
    if found is None:
        text = session.scalar(select(cast(RankingRow.entries, Text)).where(RankingRow.id == newest.id))
        found = _places(text or "{}")
        _ranked.clear()
        _ranked[key] = found
    return found.get(task, {})


def _places(text: str) -> dict[str, dict[str, RankingPlace]]:
    """Places by task and checkpoint. Whatever else the megabytes of JSON say of a checkpoint is dropped as they are
    parsed, so that it never takes memory all at once."""
    found: dict[str, dict[str, RankingPlace]] = {"": {}}
    known: dict[tuple[int, bool], RankingPlace] = {}

    def read(value: dict[str, Any]) -> Any:
        rank = value.get("rank")
        if not isinstance(rank, int):
            return None if isinstance(value.get("confidence"), float) else value
        key = (rank, bool(value["is_tied_with_best"]))
        place = known.setdefault(key, RankingPlace(*key))
        if (checkpoint := value.get("checkpoint_id")) is None:
            return place
        for task, of_task in (("", place), *value.get("by_family", {}).items()):
            found.setdefault(task, {})[checkpoint] = of_task
        return None

    json.loads(text, object_hook=read)
    return found

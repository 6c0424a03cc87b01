"""The curriculum as values: the mix by family and level with its mastery, the arms of the experiment, earlier mixes,
and what is taught of users' tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import CheckpointRow, CurriculumRow, TrialRow
from ratchet.user_tasks.supply import PATIENCE, USED_UP, passes_over
from ratchet.user_tasks.task import all_tasks
from ratchet.views.view_model import Scale

NOT_BEGUN = "Which mix teaches best is not compared yet."
STATES = {
    "off": "Only one mix is set (curriculum.strategies), so nothing is compared.",
    "waiting": "No level is mastered yet. Until one is, all batches are of the favoured mix, and nothing is compared.",
    "open": "The experiment is open: each batch is of a mix drawn at random, the more often the better a mix has done.",
    "decided": "The experiment is decided: one mix is better than every other, so all batches are of it.",
    "even": "The experiment has ended: the best mixes do not differ by enough to matter, so all batches are of one.",
}
MIXES = 15


@dataclass(frozen=True)
class Cell:
    """A family's level: its share of the mix, and how many probe items of it are right. ``n`` is 0 where unknown."""

    level: int
    share: float
    reason: str
    correct: int
    n: int
    is_mastered: bool
    is_known: bool

    @property
    def heat(self) -> int:
        """The share from 0 to 10, for colours: shares of a third and above have the strongest."""
        return min(10, round(30 * self.share)) or (1 if self.share > 0 else 0)


@dataclass(frozen=True)
class MixMap:
    """A mix as families by levels; None where a family has no such level."""

    strategy: str
    levels: tuple[int, ...]
    rows: Mapping[str, tuple[Cell | None, ...]]


@dataclass(frozen=True)
class Arm:
    """One arm. ``low``, ``mean`` and ``high`` place its interval between 0 and 100 on the scale of all arms."""

    name: str
    share: float
    trials: int
    points: float
    lowest: float
    highest: float
    best: float
    low: float
    mean: float
    high: float
    is_leader: bool


@dataclass(frozen=True)
class Experiment:
    """``zero`` is where no gain is on the scale of the arms; None where there is none in it."""

    state: str
    sentence: str
    leader: str
    arms: tuple[Arm, ...]
    zero: float | None
    report: tuple[str, ...]
    trials: int


@dataclass(frozen=True)
class OldMix:
    """A mix that was in force, with the reason."""

    id: int
    created_at: float
    reason: str


@dataclass(frozen=True)
class Taught:
    """A user's task: how often its rows were taught, and why plain passes have ended."""

    name: str
    metric: str
    state: str
    passes: float
    stale: int
    best: int | None
    passes_over: str | None
    reason: str

    @property
    def sentence(self) -> str:
        if self.state == USED_UP:
            return f"used up: {self.reason}"
        if self.passes_over is not None:
            return f"plain passes are over ({self.passes_over}); corrections of what it gets wrong go on"
        if self.stale:
            return (
                f"taught on; the last {self.stale} of at most {PATIENCE} checkpoints were no better on its probe rows"
            )
        return "taught on, and its newest checkpoint is the best so far" if self.best is not None else "taught on"


def read_mix(session: Session, number: int | None = None) -> CurriculumRow | None:
    """The mix in force, or the one of that number."""
    if number is not None:
        return session.get(CurriculumRow, number)
    return session.scalar(select(CurriculumRow).order_by(CurriculumRow.id.desc()).limit(1))


def mix_map(mix: Mapping[str, Any], mastery: Mapping[str, Any]) -> MixMap:
    """A stored mix beside the mastery of all levels, those without a share too."""
    shares = {(each["family"], int(each["level"])): each for each in mix.get("shares", ())}
    known = {(each["family"], int(each["level"])): each for each in mastery.get("levels", ())}
    cells = sorted({*shares, *known})
    levels = tuple(sorted({level for _, level in cells}))
    rows = {
        family: tuple(
            _cell(level, shares.get((family, level), {}), known.get((family, level)))
            if (family, level) in shares or (family, level) in known
            else None
            for level in levels
        )
        for family in dict.fromkeys(name for name, _ in cells)
    }
    return MixMap(str(mix.get("strategy", "")), levels, rows)


def experiment_of(session: Session, row: CurriculumRow) -> Experiment:
    """The experiment as the row has it."""
    told = row.experiment
    arms = list(told.get("arms", ()))
    tried = [arm for arm in arms if arm["trials"]]
    scale = Scale.of(arm[end] for arm in tried for end in ("low", "high"))
    leader = str(told.get("leader", ""))
    shown = tuple(
        Arm(
            name=arm["name"],
            share=arm["share"],
            trials=arm["trials"],
            points=arm["points"],
            lowest=arm["low"],
            highest=arm["high"],
            best=arm["best"],
            low=scale.place(arm["low"]),
            mean=scale.place(arm["points"]),
            high=scale.place(arm["high"]),
            is_leader=arm["name"] == leader and len(tried) > 1,
        )
        for arm in arms
    )
    state = str(told.get("state", ""))
    number = session.scalar(select(func.count()).select_from(TrialRow)) or 0
    sentence = STATES.get(state, NOT_BEGUN)
    report = tuple(map(str, told.get("report", ()))) if number else ()
    return Experiment(state, sentence, leader, shown, scale.place(0.0) if tried else None, report, number)


def old_mixes(session: Session, before: int | None = None, limit: int = MIXES) -> tuple[list[OldMix], int | None]:
    """The mixes before that number, the newest first, and where the next page begins."""
    query = select(CurriculumRow.id, CurriculumRow.created_at, CurriculumRow.reason)
    if before is not None:
        query = query.where(CurriculumRow.id < before)
    rows = [OldMix(*row) for row in session.execute(query.order_by(CurriculumRow.id.desc()).limit(limit + 1))]
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None


def taught_tasks(session: Session) -> list[Taught]:
    """The users' tasks, the oldest first."""
    tasks = all_tasks(session, "user")
    best = select(CheckpointRow.id, CheckpointRow.ordinal).where(CheckpointRow.id.in_({task.best_id for task in tasks}))
    ordinals: dict[str, int] = {row.id: row.ordinal for row in session.execute(best)}
    return [
        Taught(
            task.name,
            task.metric,
            task.state,
            task.passes,
            task.stale,
            ordinals.get(task.best_id or ""),
            passes_over(task),
            task.reason,
        )
        for task in tasks
    ]


def _cell(level: int, share: Mapping[str, Any], known: Mapping[str, Any] | None) -> Cell:
    measured = known or {}
    return Cell(
        level=level,
        share=float(share.get("weight", 0.0)),
        reason=str(share.get("reason", "")),
        correct=int(measured.get("correct", 0)),
        n=int(measured.get("n", 0)),
        is_mastered=bool(measured.get("is_mastered", False)),
        is_known=known is not None,
    )

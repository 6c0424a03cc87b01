"""What checkpoints answer right, as a heat map: a row for each checkpoint, a column for each level of each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

from ratchet.evaluation.record import Rate, TaskScore
from ratchet.views.view_model import CheckpointView, percent

SHADES = 10
"""Shades beside that of 0."""


@dataclass(frozen=True)
class Cell:
    """``shade`` is from 0 to SHADES; ``items`` were measured."""

    text: str
    items: int
    shade: int
    meaning: str


@dataclass(frozen=True)
class Column:
    """``level`` is None for a task that is measured by loss or by a judge."""

    family: str
    level: int | None


@dataclass(frozen=True)
class HeatMap:
    """``families`` has each family with its number of columns. A cell is None where nothing was measured."""

    columns: tuple[Column, ...]
    families: tuple[tuple[str, int], ...]
    rows: tuple[tuple[CheckpointView, tuple[Cell | None, ...]], ...]


def heat_map(checkpoints: Sequence[CheckpointView], family: str = "") -> HeatMap:
    """Those of these checkpoints that were measured, in the order given; of one family, or of all."""
    shown = [view for view in checkpoints if view.levels or view.scores]
    cells = {cell for view in shown for cell in view.levels if family in ("", cell[0])}
    tasks = {name for view in shown for name in view.scores if family in ("", name)}
    columns = [Column(name, level) for name, level in sorted(cells)] + [Column(name, None) for name in sorted(tasks)]
    counts: dict[str, int] = {}
    for column in columns:
        counts[column.family] = counts.get(column.family, 0) + 1
    rows = tuple((view, tuple(_cell(view, column) for column in columns)) for view in shown)
    return HeatMap(tuple(columns), tuple(counts.items()), rows)


def _cell(view: CheckpointView, column: Column) -> Cell | None:
    if column.level is None:
        score = view.scores.get(column.family)
        return None if score is None else _scored(score)
    rate = view.levels.get((column.family, column.level))
    return None if rate is None else _graded(rate)


def _graded(rate: Rate) -> Cell:
    return Cell(percent(rate), rate.n, shade_of(rate.value), f"{rate.correct} of {rate.n} right")


def _scored(score: TaskScore) -> Cell:
    """A loss counts as exp(-loss), the mean probability of the reference answer's tokens, as in the ranking."""
    if score.metric == "loss":
        meaning = f"loss {score.mean:.3f} nats per token on {score.n} items"
        return Cell(f"{score.mean:.2f}", score.n, shade_of(exp(-score.mean)), meaning)
    return Cell(f"{100 * score.mean:.0f}", score.n, shade_of(score.mean), f"preferred in {score.mean:.0%} of {score.n}")


def shade_of(share: float) -> int:
    """From 0 to SHADES; only a share of 0 has the shade 0, and only 1 the last."""
    if share <= 0:
        return 0
    return SHADES if share >= 1 else min(SHADES - 1, max(1, round(SHADES * share)))

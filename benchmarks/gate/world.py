"""A simulated world for gates: a champion, and checkpoints whose differences from it are known.

Each cell of a suite (family and level) has a success rate and the shares of items that a checkpoint truly gains and
loses. Successive checkpoints flip the same items more often than chance: their normal scores share ``correlation``
through a trait of the item. The champion's grades are drawn once a run, as they are in life.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from ratchet.evaluation.paired_outcomes import CellOutcomes, OutcomeTable
from scipy.special import ndtri


@dataclass(frozen=True)
class Cell:
    """One level: the champion's success rate, and the true shares of its items that a checkpoint gains and loses."""

    family: str
    level: int
    accuracy: float
    gains: float
    losses: float
    is_mastered: bool


@dataclass(frozen=True)
class World:
    """Cells with these numbers of eval and confirm items in each."""

    name: str
    cells: tuple[Cell, ...]
    eval_items: int
    confirm_items: int

    @property
    def mastered(self) -> dict[str, frozenset[int]]:
        families = {cell.family for cell in self.cells if cell.is_mastered}
        return {
            family: frozenset(c.level for c in self.cells if c.family == family and c.is_mastered)
            for family in families
        }

    @property
    def effect(self) -> float:
        return float(np.mean([cell.gains - cell.losses for cell in self.cells]))

    @property
    def discordant_share(self) -> float:
        return float(np.mean([cell.gains + cell.losses for cell in self.cells]))


@dataclass(frozen=True)
class History:
    """Flip counts of successive checkpoints against one champion, each array of shape (checkpoints, cells)."""

    world: World
    eval_gains: NDArray[np.int64]
    eval_losses: NDArray[np.int64]
    confirm_gains: NDArray[np.int64]
    confirm_losses: NDArray[np.int64]

    def eval_table(self, checkpoint: int) -> OutcomeTable:
        return _table(self.world, self.world.eval_items, self.eval_gains, self.eval_losses, checkpoint)

    def confirm_table(self, checkpoint: int) -> OutcomeTable:
        return _table(self.world, self.world.confirm_items, self.confirm_gains, self.confirm_losses, checkpoint)


def live(world: World, checkpoints: int, correlation: float, rng: np.random.Generator) -> History:
    """One champion and the checkpoints that come after it."""
    evaluated = _outcomes(world, world.eval_items, checkpoints, correlation, rng)
    confirmed = _outcomes(world, world.confirm_items, checkpoints, correlation, rng)
    return History(world, *evaluated, *confirmed)


def _outcomes(
    world: World, per_cell: int, checkpoints: int, correlation: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    shape = (len(world.cells), per_cell)
    accuracy, gains, losses = (
        np.array([getattr(cell, name) for cell in world.cells])[:, None] for name in ("accuracy", "gains", "losses")
    )
    was_correct = rng.random(shape) < accuracy
    chance = np.where(was_correct, losses / accuracy, gains / (1 - accuracy))
    trait = np.sqrt(correlation) * rng.standard_normal(shape)
    own = np.sqrt(1 - correlation) * rng.standard_normal((checkpoints, *shape), dtype=np.float32)
    flipped = trait + own < ndtri(chance)
    return (flipped & ~was_correct).sum(axis=2), (flipped & was_correct).sum(axis=2)


def _table(world: World, n: int, gains: NDArray[np.int64], losses: NDArray[np.int64], checkpoint: int) -> OutcomeTable:
    return tuple(
        CellOutcomes(family=c.family, level=c.level, n=n, gains=int(won), losses=int(lost))
        for c, won, lost in zip(world.cells, gains[checkpoint], losses[checkpoint], strict=True)
    )

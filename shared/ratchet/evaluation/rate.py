"""A success rate with the number of items behind it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from ratchet.evaluation.record import ItemRecord


class Rate(BaseModel):
    """``correct`` of ``n`` items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    correct: int
    n: int

    @property
    def value(self) -> float:
        return self.correct / self.n


LevelRates = dict[tuple[str, int], Rate]


def level_rates(items: Iterable[ItemRecord]) -> LevelRates:
    """The rate of each (family, level) that has items."""
    counts: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for item in items:
        counts[item.family, item.level][0] += item.correct
        counts[item.family, item.level][1] += 1
    return {cell: Rate(correct=correct, n=n) for cell, (correct, n) in sorted(counts.items())}

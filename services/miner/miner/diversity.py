"""Diversity: how a batch covers family by level, how evenly, and how much of it is repetition."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict
from ratchet.data.example import Example
from ratchet.errors import EmptyEvaluation

Level = tuple[str, int]


class Cell(BaseModel):
    """One family and level. ``gap`` is how far its share falls short of the wanted one: 0 not at all, 1 wholly."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    level: int
    rows: int
    share: float
    wanted: float
    gap: float


class Coverage(BaseModel):
    """``entropy`` is Shannon's over the cells, divided by its largest value (1 is even); ``duplicates`` are rows whose
    item stands in the batch already; ``novelty`` is the share of distinct items that no earlier batch held."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    distinct: int
    duplicates: int
    entropy: float
    novelty: float
    mean_answer_chars: float
    cells: tuple[Cell, ...]

    def gaps(self) -> dict[Level, float]:
        return {(cell.family, cell.level): cell.gap for cell in self.cells if cell.gap > 0}


def measure(rows: Iterable[tuple[Example, str]], wanted: Mapping[Level, float], known: Mapping[str, int]) -> Coverage:
    """Coverage of a batch of (example, item key).

    ``wanted`` is the mix it should have followed; ``known`` counts all queued uses of a key, this batch's among them.
    Raises EmptyEvaluation for an empty batch.
    """
    cells: Counter[Level] = Counter()
    keys: Counter[str] = Counter()
    chars = 0
    for example, key in rows:
        cells[example.family or "unknown", example.level] += 1
        keys[key] += 1
        chars += len(example.answer or "")
    total = cells.total()
    if not total:
        raise EmptyEvaluation("the batch is empty: there is no coverage to measure.")
    return Coverage(
        rows=total,
        distinct=len(keys),
        duplicates=total - len(keys),
        entropy=normalised_entropy(cells.values()),
        novelty=sum(known.get(key, 0) <= uses for key, uses in keys.items()) / len(keys),
        mean_answer_chars=chars / total,
        cells=tuple(
            _cell(level, cells[level], total, wanted.get(level, 0.0)) for level in sorted(cells.keys() | wanted.keys())
        ),
    )


def normalised_entropy(counts: Iterable[int]) -> float:
    """H / log(k) over the k cells that have rows; 1.0 for a single cell."""
    found = [count for count in counts if count]
    total = sum(found)
    if len(found) < 2:
        return 1.0
    return -sum(count / total * math.log(count / total) for count in found) / math.log(len(found))


def _cell(level: Level, rows: int, total: int, wanted: float) -> Cell:
    share = rows / total
    gap = max(0.0, 1 - share / wanted) if wanted > 0 else 0.0
    return Cell(family=level[0], level=level[1], rows=rows, share=share, wanted=wanted, gap=gap)

"""Coverage of a batch: how it covers family by level by feature, how evenly, and how much of it is repetition."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field
from ratchet.data.example import Example
from ratchet.errors import EmptyEvaluation

from miner.text_history import Novelty

Level = tuple[str, int]
ENOUGH = 50
"""Rows of a level from which a declared feature that none of them has is called absent."""


@dataclass(frozen=True)
class Row:
    """One row of a batch: its example and item key, and which of its family's declared features its problem has."""

    example: Example
    key: str
    traits: frozenset[str] = frozenset()
    declared: frozenset[str] = frozenset()


class Cell(BaseModel):
    """One family and level. ``gap`` is how far its share falls short of the wanted one: 0 not at all, 1 completely.

    ``features`` counts rows by declared feature; ``absent`` are features that none of at least ENOUGH rows has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    level: int
    rows: int
    share: float
    wanted: float
    gap: float
    features: dict[str, int] = Field(default_factory=dict)
    absent: tuple[str, ...] = ()


class Coverage(BaseModel):
    """``entropy`` is Shannon's over the cells, divided by its largest value (1 is even); ``duplicates`` are rows whose
    item is in the batch already; ``novelty`` is the share of distinct items that no earlier batch held.

    ``feature_entropy`` is the same over (cell, feature); ``lengths`` counts answers by their length in characters,
    under the power of two that it is below: 8 stands for 4 to 7. ``texts`` counts near-duplicates and runs of words
    (see miner.text_history); None where they were not measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    distinct: int
    duplicates: int
    entropy: float
    novelty: float
    feature_entropy: float
    mean_answer_chars: float
    lengths: dict[int, int]
    cells: tuple[Cell, ...]
    texts: Novelty | None = None

    def gaps(self) -> dict[Level, float]:
        return {(cell.family, cell.level): cell.gap for cell in self.cells if cell.gap > 0}


@dataclass
class _Counts:
    cells: Counter[Level] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)
    features: dict[Level, Counter[str]] = field(default_factory=dict)
    lengths: Counter[int] = field(default_factory=Counter)
    chars: int = 0

    def add(self, row: Row) -> None:
        cell = row.example.family or "unknown", row.example.level
        length = len(row.example.answer or "")
        self.cells[cell] += 1
        self.keys[row.key] += 1
        self.features.setdefault(cell, Counter(dict.fromkeys(row.declared, 0))).update(row.traits)
        self.lengths[1 << length.bit_length()] += 1
        self.chars += length


def measure(
    rows: Iterable[Row],
    wanted: Mapping[Level, float],
    known: Callable[[Collection[str]], Mapping[str, int]] = lambda _keys: {},
) -> Coverage:
    """Coverage of a batch.

    ``wanted`` is the mix that was requested; ``known`` counts all queued uses of these keys, this batch's among
    them. Raises EmptyEvaluation for an empty batch.
    """
    counts = _Counts()
    for row in rows:
        counts.add(row)
    total, keys = counts.cells.total(), counts.keys
    if not total:
        raise EmptyEvaluation("the batch is empty: there is no coverage to measure.")
    queued = known(keys.keys())
    return Coverage(
        rows=total,
        distinct=len(keys),
        duplicates=total - len(keys),
        entropy=normalised_entropy(counts.cells.values()),
        feature_entropy=normalised_entropy(count for each in counts.features.values() for count in each.values()),
        novelty=sum(queued.get(key, 0) <= uses for key, uses in keys.items()) / len(keys),
        mean_answer_chars=counts.chars / total,
        lengths=dict(sorted(counts.lengths.items())),
        cells=tuple(
            _cell(level, counts, wanted.get(level, 0.0)) for level in sorted(counts.cells.keys() | wanted.keys())
        ),
    )


def normalised_entropy(counts: Iterable[int]) -> float:
    """H / log(k) over the k cells that have rows; 1.0 for a single cell."""
    found = [count for count in counts if count]
    total = sum(found)
    if len(found) < 2:
        return 1.0
    return -sum(count / total * math.log(count / total) for count in found) / math.log(len(found))


def _cell(level: Level, counts: _Counts, wanted: float) -> Cell:
    rows = counts.cells[level]
    share = rows / counts.cells.total()
    features = counts.features.get(level, Counter())
    return Cell(
        family=level[0],
        level=level[1],
        rows=rows,
        share=share,
        wanted=wanted,
        gap=max(0.0, 1 - share / wanted) if wanted > 0 else 0.0,
        features=dict(sorted(features.items())),
        absent=tuple(sorted(name for name, count in features.items() if not count)) if rows >= ENOUGH else (),
    )

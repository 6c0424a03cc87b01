"""What the page tells of, as values. Drawing and writing know nothing of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ratchet.cli.view.forking import ForkView
from ratchet.cli.view.scene import Live, Look
from ratchet.run.summary import Change

Cell = tuple[str, int]
"""(family, level)."""


@dataclass(frozen=True)
class Calibrated:
    """A checkpoint's calibration, as the calibrator wrote it."""

    ordinal: int
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class MinedItems:
    """How many items of each category mining found a checkpoint weak on."""

    ordinal: int
    by_category: Mapping[str, int]


@dataclass(frozen=True)
class BatchFacts:
    """A batch of data. ``levels`` counts the rows that passed the gate, ``reasons`` those that did not."""

    id: str
    origin: str
    state: str
    examples: int
    lessons: int
    quarantined: int
    levels: Mapping[Cell, int]
    reasons: Mapping[str, int]
    entropy: float | None
    novelty: float | None
    submitted_at: float


@dataclass(frozen=True)
class Mix:
    """The shares of generated data that the curriculum asked for, from a moment on."""

    at: float
    shares: Mapping[Cell, float]
    strategy: str


@dataclass(frozen=True)
class Arm:
    """A strategy of the curriculum's experiment. Gains are points of the probe suite per 100,000 tokens trained."""

    name: str
    share: float
    trials: int
    points: float
    low: float
    high: float
    best: float


@dataclass(frozen=True)
class Facts:
    """Everything the page shows. Checkpoints, batches and mixes are in the order in which they came."""

    title: str
    written_at: float
    checkpoints: tuple[Look, ...]
    live: Live | None
    changes: tuple[Change, ...]
    reasons: Mapping[int, str]
    calibrations: tuple[Calibrated, ...]
    mined: tuple[MinedItems, ...]
    batches: tuple[BatchFacts, ...]
    mixes: tuple[Mix, ...]
    arms: tuple[Arm, ...]
    findings: tuple[str, ...]
    forks: tuple[ForkView, ...]
    dead: int

    @property
    def first_at(self) -> float:
        """When the run's first checkpoint, the base model, was entered."""
        return self.checkpoints[0].created_at if self.checkpoints else self.written_at

    @property
    def judged(self) -> tuple[Look, ...]:
        """The checkpoints with a record on the eval suite."""
        return tuple(look for look in self.checkpoints if look.overall is not None and look.overall.n)

    @property
    def families(self) -> list[str]:
        return sorted({family for look in self.judged for family, _ in look.levels})

"""The plug-in point for a curriculum strategy: from what the model can do to a draft of the mix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from ratchet.evaluation.record import LevelRates
from ratchet.settings.curriculum import CurriculumSettings

from datagen.mastery import Mastery
from datagen.mix import Draft, Level

RECENT = 4
"""Evaluations that an arm may look back on."""


@dataclass(frozen=True)
class Standing:
    """What is known of the model.

    ``families`` are the levels taught, the easiest first. ``history`` holds success rates on the probe suite, one
    entry an evaluated checkpoint, the newest last, at most RECENT.
    """

    families: Mapping[str, tuple[int, ...]]
    mastery: Mastery
    history: tuple[LevelRates, ...] = ()
    settings: CurriculumSettings = field(default_factory=CurriculumSettings)

    @property
    def levels(self) -> list[Level]:
        """Every level taught, in the order of families."""
        return [(family, level) for family, levels in self.families.items() for level in levels]


@runtime_checkable
class Arm(Protocol):
    """A strategy. ``draft`` is pure, and gives weight to levels of the standing's families alone."""

    name: str
    purpose: str

    def draft(self, standing: Standing) -> Draft:
        """The levels that the next batches teach; a level left out gets nothing."""
        ...

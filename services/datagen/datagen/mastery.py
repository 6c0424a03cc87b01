"""Which levels are mastered, with hysteresis: what was won is lost again only well below the threshold."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from ratchet.evaluation.record import LevelRates
from ratchet.settings.curriculum import CurriculumSettings


class LevelMastery(BaseModel):
    """One level as last measured: ``correct`` of ``n`` probe items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    level: int
    correct: int
    n: int
    is_mastered: bool


class Mastery(BaseModel):
    """All levels that were ever measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    levels: tuple[LevelMastery, ...] = ()

    def is_mastered(self, family: str, level: int) -> bool:
        return any(m.is_mastered for m in self.levels if (m.family, m.level) == (family, level))

    @property
    def any(self) -> bool:
        """Whether a single level is mastered."""
        return any(m.is_mastered for m in self.levels)


def update_mastery(before: Mastery, measured: LevelRates, settings: CurriculumSettings) -> Mastery:
    """Mastery after a probe: a level is won at ``mastery`` and lost again only below mastery minus hysteresis.

    A level measured on fewer than ``mastery_items``, or not at all, keeps its state.
    """
    known = {(m.family, m.level): m for m in before.levels}
    for (family, level), rate in measured.items():
        held = (family, level) in known and known[family, level].is_mastered
        threshold = settings.mastery - (settings.hysteresis if held else 0.0)
        enough = rate.n >= settings.mastery_items
        known[family, level] = LevelMastery(
            family=family,
            level=level,
            correct=rate.correct,
            n=rate.n,
            is_mastered=rate.value >= threshold if enough else held,
        )
    return Mastery(levels=tuple(known[cell] for cell in sorted(known)))

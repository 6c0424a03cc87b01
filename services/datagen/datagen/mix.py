"""A mix: how much of the next batches each level gets, and why.

An arm drafts it from what the model can do. Then what is known of the data bends it: a coverage gap shifts weight
between levels and never adds any, and a level without new items is capped.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict
from ratchet.settings.curriculum import CurriculumSettings

Key = TypeVar("Key")
Level = tuple[str, int]
"""A family's name and a level."""


class Drafted(NamedTuple):
    """What an arm gives a level: a weight (not below 0, of any scale), the level's role, and the reason in words."""

    weight: float
    role: str
    reason: str


Draft = Mapping[Level, Drafted]


class Share(BaseModel):
    """Weight of one level in the mix, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    level: int
    weight: float
    role: str
    reason: str


class Mix(BaseModel):
    """Shares in the order of family and level; their weights add up to 1. ``strategy`` is the arm that drafted it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: str
    shares: tuple[Share, ...]

    def weights(self) -> dict[Level, float]:
        return {(share.family, share.level): share.weight for share in self.shares}


def bend(
    strategy: str,
    draft: Draft,
    gaps: Mapping[Level, float],
    exhausted: Collection[Level],
    settings: CurriculumSettings,
) -> Mix:
    """The mix of a draft.

    ``gaps`` say how far a level's coverage falls short (0 not at all, 1 wholly); levels in ``exhausted`` have no new
    items left.
    """
    weights = normalised({cell: drafted.weight for cell, drafted in draft.items()})
    drawn = normalised({cell: w * (1 + settings.coverage_shift * gaps.get(cell, 0.0)) for cell, w in weights.items()})
    capped = _capped(drawn, frozenset(exhausted), settings.exhausted_cap)
    return Mix(
        strategy=strategy,
        shares=tuple(
            Share(
                family=family,
                level=level,
                weight=weight,
                role=draft[family, level].role,
                reason=_reason((family, level), draft[family, level].reason, gaps, exhausted),
            )
            for (family, level), weight in sorted(capped.items())
        ),
    )


def normalised(weights: Mapping[Key, float]) -> dict[Key, float]:
    """The weights with a sum of 1; all alike where none is above 0."""
    total = sum(weights.values())
    if total <= 0:
        return {key: 1 / len(weights) for key in weights}
    return {key: weight / total for key, weight in weights.items()}


def _capped(weights: Mapping[Level, float], exhausted: Collection[Level], cap: float) -> dict[Level, float]:
    """Exhausted levels at ``cap`` at most, what they lose going to the others in proportion; where all are, no cap."""
    free = {cell: weight for cell, weight in weights.items() if cell not in exhausted}
    if not sum(free.values()):
        return dict(weights)
    held = {cell: min(weight, cap) for cell, weight in weights.items() if cell in exhausted}
    room = 1 - sum(held.values())
    return held | {cell: weight * room for cell, weight in normalised(free).items()}


def _reason(cell: Level, words: str, gaps: Mapping[Level, float], exhausted: Collection[Level]) -> str:
    if gaps.get(cell, 0.0) > 0:
        words += f"; coverage falls short by {gaps[cell]:.0%}"
    if cell in exhausted:
        words += "; no new items left, so capped"
    return words

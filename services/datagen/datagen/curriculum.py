"""What the next batches teach: from measured mastery to a mix over families and levels.

First form: one rule. Each family's frontier, the first level not mastered, gets about half of the family's weight;
mastered levels are replayed with most of the rest, so that they are not forgotten; a little goes to the level after
the frontier. A coverage gap shifts weight between levels and never adds any; an exhausted level is capped. A mix names
the strategy that made it, so that an experiment can assign strategies to training segments and compare them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict
from ratchet.evaluation.rate import LevelRates
from ratchet.settings.curriculum import CurriculumSettings

Key = TypeVar("Key")
Level = tuple[str, int]
Role = Literal["frontier", "replay", "lookahead"]


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


class Share(BaseModel):
    """Weight of one level in the mix, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    level: int
    weight: float
    role: Role
    reason: str


class Mix(BaseModel):
    """Shares in the order of family and level; their weights add up to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: str
    shares: tuple[Share, ...]

    def weights(self) -> dict[Level, float]:
        return {(share.family, share.level): share.weight for share in self.shares}


def update_mastery(before: Mastery, measured: LevelRates, settings: CurriculumSettings) -> Mastery:
    """Mastery after a probe, with hysteresis: a level is lost again only below mastery minus hysteresis.

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


def plan_mix(
    mastery: Mastery,
    families: Mapping[str, Collection[int]],
    gaps: Mapping[Level, float],
    exhausted: Collection[Level],
    settings: CurriculumSettings,
) -> Mix:
    """The mix of the progressive strategy.

    ``families`` are the levels taught, the families weighted alike; ``gaps`` say how far a level's coverage falls short
    (0 not at all, 1 wholly); levels in ``exhausted`` have no new items left.
    """
    roles = {family: _roles(mastery, family, sorted(levels)) for family, levels in families.items()}
    weights = {
        (family, level): weight / len(families)
        for family, by_level in roles.items()
        for level, weight in _base_weights(by_level, settings).items()
    }
    drawn = _normalised({cell: w * (1 + settings.coverage_shift * gaps.get(cell, 0.0)) for cell, w in weights.items()})
    capped = _capped(drawn, frozenset(exhausted), settings.exhausted_cap)
    return Mix(
        strategy="progressive",
        shares=tuple(
            Share(
                family=family,
                level=level,
                weight=weight,
                role=roles[family][level],
                reason=_reason((family, level), roles[family][level], gaps, exhausted),
            )
            for (family, level), weight in sorted(capped.items())
        ),
    )


def _roles(mastery: Mastery, family: str, levels: list[int]) -> dict[int, Role]:
    """Roles of the levels that are in the mix. A level above the look-ahead has none until its turn comes."""
    unmastered = [level for level in levels if not mastery.is_mastered(family, level)]
    first_roles: tuple[Role, ...] = ("frontier", "lookahead")
    replayed: dict[int, Role] = {level: "replay" for level in levels if level not in unmastered}
    return replayed | dict(zip(unmastered, first_roles, strict=False))


def _base_weights(roles: Mapping[int, Role], settings: CurriculumSettings) -> dict[int, float]:
    """Weights within one family, adding up to 1; the share of a role that nobody has goes to the others."""
    shares: dict[Role, float] = {
        "frontier": settings.frontier_share,
        "lookahead": settings.lookahead_share,
        "replay": 1 - settings.frontier_share - settings.lookahead_share,
    }
    held = list(roles.values())
    return _normalised({level: shares[role] / held.count(role) for level, role in roles.items()})


def _normalised(weights: Mapping[Key, float]) -> dict[Key, float]:
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
    return held | {cell: weight * room for cell, weight in _normalised(free).items()}


def _reason(cell: Level, role: Role, gaps: Mapping[Level, float], exhausted: Collection[Level]) -> str:
    words = {
        "frontier": "the first level not mastered",
        "lookahead": "the level after the frontier",
        "replay": "mastered, replayed against forgetting",
    }[role]
    if gaps.get(cell, 0.0) > 0:
        words += f"; coverage falls short by {gaps[cell]:.0%}"
    if cell in exhausted:
        words += "; no new items left, so capped"
    return words

"""Curriculum strategies: each drafts the weights of the levels in the next batches from the model's mastery.

A strategy is a class named in the entry-point group ``ratchet.strategies``. It gets the model's mastery and its last
success rates, and does not know coverage, the queue or its own effect, which mix.py and bandit.py handle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from itertools import pairwise
from math import sqrt
from typing import NamedTuple, Protocol, TypeVar, cast, runtime_checkable

from pydantic import BaseModel, ConfigDict
from ratchet.errors import UnknownPlugin
from ratchet.evaluation.record import LevelRates, Rate
from ratchet.plugins import STRATEGIES
from ratchet.settings.data import LOOKAHEAD_SHARE, CurriculumSettings

Key = TypeVar("Key")
Level = tuple[str, int]
"""A family's name and a level."""


class Drafted(NamedTuple):
    """What a strategy gives a level: a weight (from 0, of any scale), the role of the level, and why in words."""

    weight: float
    role: str
    reason: str


Draft = Mapping[Level, Drafted]


def normalised(weights: Mapping[Key, float]) -> dict[Key, float]:
    """The weights with a sum of 1; all equal if none is above 0."""
    total = sum(weights.values())
    if total <= 0:
        return {key: 1 / len(weights) for key in weights}
    return {key: weight / total for key, weight in weights.items()}


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


HYSTERESIS = 0.05
"""A level is lost only this far below the rate at which it was won, since rates on a few dozen items vary as much."""

FEWEST_ITEMS = 5
"""Probe items on which a level is judged at least."""


def update_mastery(before: Mastery, measured: LevelRates, won_at: float) -> Mastery:
    """Mastery after a probe: a level is won at a rate of ``won_at``, and lost again only HYSTERESIS below it.

    A level measured on fewer than FEWEST_ITEMS, or not at all, keeps its state.
    """
    known = {(m.family, m.level): m for m in before.levels}
    for (family, level), rate in measured.items():
        held = (family, level) in known and known[family, level].is_mastered
        threshold = won_at - (HYSTERESIS if held else 0.0)
        enough = rate.n >= FEWEST_ITEMS
        known[family, level] = LevelMastery(
            family=family,
            level=level,
            correct=rate.correct,
            n=rate.n,
            is_mastered=rate.value >= threshold if enough else held,
        )
    return Mastery(levels=tuple(known[cell] for cell in sorted(known)))


RECENT = 4
"""Evaluations that a strategy may look back on."""


@dataclass(frozen=True)
class LearnerState:
    """What is known of the model that is taught.

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
class Strategy(Protocol):
    """One way to choose what is taught. ``draft`` is pure, and gives weight only to levels of the learner."""

    name: str
    purpose: str

    def draft(self, learner: LearnerState) -> Draft:
        """The levels that the next batches teach; a level left out gets nothing."""
        ...


class Mixed:
    """The uniform mix over all levels taught."""

    name = "mixed"
    purpose = "Every level taught gets the same."

    def draft(self, learner: LearnerState) -> Draft:
        return {cell: Drafted(1.0, "even", "as every level") for cell in learner.levels}


_REASONS = {"lookahead": "the level after the frontier", "replay": "mastered, replayed against forgetting"}


class Progressive:
    """Each family's first unmastered level, its frontier, gets ``frontier_share`` of the family's weight, the one after
    it LOOKAHEAD_SHARE, and mastered levels share the rest. Families weigh alike."""

    name = "progressive"
    purpose = "The first unmastered level gets most, the next one a little; mastered levels are replayed."

    def draft(self, learner: LearnerState) -> Draft:
        return _climbed(learner, {f: sorted(levels) for f, levels in learner.families.items()}, "first")


class Reverse:
    """As progressive, from the hardest unmastered level down."""

    name = "reverse"
    purpose = "The hardest unmastered level gets most, the one below it a little; mastered levels are replayed."

    def draft(self, learner: LearnerState) -> Draft:
        falling = {f: sorted(levels, reverse=True) for f, levels in learner.families.items()}
        return _climbed(learner, falling, "hardest")


def _climbed(learner: LearnerState, ladders: dict[str, list[int]], which: str) -> Draft:
    reasons = _REASONS | {"frontier": f"the {which} level not mastered"}
    draft: dict[Level, Drafted] = {}
    for family, rungs in ladders.items():
        roles = _roles(learner, family, rungs)
        for level, weight in _family_weights(learner, roles).items():
            draft[family, level] = Drafted(weight, roles[level], reasons[roles[level]])
    return draft


def _roles(learner: LearnerState, family: str, rungs: Sequence[int]) -> dict[int, str]:
    """Roles of the levels in the mix. A level beyond the look-ahead has none yet."""
    unmastered = [level for level in rungs if not learner.mastery.is_mastered(family, level)]
    replayed = {level: "replay" for level in rungs if level not in unmastered}
    return replayed | dict(zip(unmastered, ("frontier", "lookahead"), strict=False))


def _family_weights(learner: LearnerState, roles: dict[int, str]) -> dict[int, float]:
    """Weights within one family, with a sum of 1; the share of a role that no level has goes to the others."""
    settings = learner.settings
    shares = {
        "frontier": settings.frontier_share,
        "lookahead": LOOKAHEAD_SHARE,
        "replay": 1 - settings.frontier_share - LOOKAHEAD_SHARE,
    }
    held = list(roles.values())
    return normalised({level: shares[role] / held.count(role) for level, role in roles.items()})


_NOTHING = Rate(correct=0, n=0)


class Adaptive:
    """Weight is expected progress, but ``replay_share`` of all goes to the levels reached, alike, against
    forgetting."""

    name = "adaptive"
    purpose = "Levels get weight by the learning progress expected of them; those reached are replayed."

    def draft(self, learner: LearnerState) -> Draft:
        expected = {cell: _expected(learner, cell) for cell in learner.levels}
        seeking = normalised(expected)
        reached = [cell for cell in learner.levels if expected[cell] > 0 or _latest(learner, cell).correct]
        replay = learner.settings.replay_share
        return {
            cell: Drafted(
                (1 - replay) * seeking[cell] + replay / len(reached),
                "progress",
                f"{100 * expected[cell]:.0f} points of progress expected",
            )
            for cell in reached
        }


def _expected(learner: LearnerState, cell: Level) -> float:
    """Mean of the guess and of the measured changes, each counted once."""
    family, level = cell
    below = max((other for other in learner.families[family] if other < level), default=None)
    readiness = 1.0 if below is None else _value(_latest(learner, (family, below)))
    guess = readiness * (1 - _value(_latest(learner, cell)))
    changes = [
        _beyond_chance(before[cell], after[cell])
        for before, after in pairwise(learner.history)
        if cell in before and cell in after
    ]
    return (guess + sum(changes)) / (1 + len(changes))


def _latest(learner: LearnerState, cell: Level) -> Rate:
    return learner.history[-1].get(cell, _NOTHING) if learner.history else _NOTHING


def _value(rate: Rate) -> float:
    return rate.value if rate.n else 0.0


def _beyond_chance(before: Rate, after: Rate) -> float:
    """The size of a change of the rate, less one standard error (Agresti and Caffo's, with one item added to each)."""
    error = sqrt(sum(_variance(rate) for rate in (before, after)))
    return max(0.0, abs(after.value - before.value) - error)


def _variance(rate: Rate) -> float:
    smoothed = (rate.correct + 1) / (rate.n + 2)
    return smoothed * (1 - smoothed) / (rate.n + 2)


@cache
def get_strategy(name: str) -> Strategy:
    """The strategy of this name, the same object every time. Raises UnknownPlugin, listing the known ones."""
    point = _points().get(name)
    if point is None:
        raise UnknownPlugin(f"no strategy {name!r} (curriculum.strategies). Known: {', '.join(known_strategies())}.")
    return cast(Strategy, point.load()())


def known_strategies() -> list[str]:
    """Names of the installed strategies."""
    return sorted(_points())


@cache
def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=STRATEGIES)}

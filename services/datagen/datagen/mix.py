"""A mix: how much of the next batches each level gets, and why; and the plan, a mix for each strategy.

A strategy drafts a mix from the model's mastery. The draft is then adjusted by the state of the data: a coverage gap
shifts weight between levels, and a level without new items is capped. A batch draws its strategy from the plan. This
module does not know the ledger.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from datagen.bandit import Experiment, assign, beginning
from datagen.strategies import Draft, LearnerState, Level, Mastery, get_strategy, normalised

COVERAGE_SHIFT = 0.5
"""Strength of a coverage gap: at a gap of 1, a level's weight grows by this share before shares are normalised."""

EXHAUSTED_CAP = 0.05
"""Largest share of a level whose distinct items are used up: enough to keep it in memory."""


class Share(BaseModel):
    """Weight of one level in the mix, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    level: int
    weight: float
    role: str
    reason: str


class Mix(BaseModel):
    """Shares in the order of family and level; their weights add up to 1. ``strategy`` drafted it."""

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
) -> Mix:
    """The mix of a draft.

    ``gaps`` say how far a level's coverage falls short (0 not at all, 1 wholly); levels in ``exhausted`` have no new
    items left.
    """
    weights = normalised({cell: drafted.weight for cell, drafted in draft.items()})
    drawn = normalised({cell: w * (1 + COVERAGE_SHIFT * gaps.get(cell, 0.0)) for cell, w in weights.items()})
    capped = _capped(drawn, frozenset(exhausted), EXHAUSTED_CAP)
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


def _capped(weights: Mapping[Level, float], exhausted: Collection[Level], cap: float) -> dict[Level, float]:
    """Exhausted levels limited to ``cap``, the excess shared among the others; no cap if all are exhausted."""
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


class Assignment(BaseModel):
    """The strategy that was drawn for a batch, and with what probability; it is recorded with the batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arm: str
    probability: float


class Plan(BaseModel):
    """The experiment, and a mix for each strategy. ``mix`` is that with the largest share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: Experiment
    mixes: Mapping[str, Mix]

    @classmethod
    def stored(cls, experiment: Mapping[str, Any], mixes: Mapping[str, Any]) -> Plan:
        """From the JSON columns of the ledger's row."""
        return cls.model_validate({"experiment": experiment, "mixes": mixes})

    @property
    def mix(self) -> Mix:
        shares = self.experiment.shares()
        return self.mixes[max(shares, key=lambda arm: shares[arm])]

    def is_same_as(self, other: Plan) -> bool:
        """Whether the experiments are equal and all weights are the same; reasons may differ."""
        if self.experiment != other.experiment or self.mixes.keys() != other.mixes.keys():
            return False
        return all(self.mixes[arm].weights() == other.mixes[arm].weights() for arm in self.mixes)

    def draw(self, seed: int) -> tuple[Assignment, Mix]:
        """The strategy of the batch with this seed, and its mix."""
        shares = self.experiment.shares()
        arm = assign(shares, seed)
        return Assignment(arm=arm, probability=shares[arm]), self.mixes[arm]


def plan(
    learner: LearnerState, experiment: Experiment, gaps: Mapping[Level, float], exhausted: Collection[Level]
) -> Plan:
    """Every strategy's draft, adjusted by the state of the data. Raises UnknownPlugin for one that is not installed."""
    drafts = {arm: get_strategy(arm).draft(learner) for arm in learner.settings.strategies}
    mixes = {arm: bend(arm, draft, gaps, exhausted) for arm, draft in drafts.items()}
    return Plan(experiment=experiment, mixes=mixes)


def first_plan(learner: LearnerState) -> Plan:
    """The plan before the first curriculum: the favoured strategy, for a model that masters nothing."""
    beginner = LearnerState(learner.families, Mastery(), (), learner.settings)
    return plan(beginner, beginning(learner.settings), {}, ())

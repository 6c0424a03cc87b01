"""What a curriculum row says: where the experiment stands, and the mix that each arm would teach next."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from datagen.arms import registry
from datagen.arms.arm import Standing
from datagen.experiment import Experiment, assign, beginning
from datagen.mastery import Mastery
from datagen.mix import Level, Mix, bend


class Assignment(BaseModel):
    """The arm that was drawn for a batch, and with what probability; it is recorded with the batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arm: str
    probability: float


class Plan(BaseModel):
    """The experiment, and a mix for each arm. ``mix`` is that of the arm with the largest share."""

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

    def says_the_same_as(self, other: Plan) -> bool:
        """Whether the experiment stands alike and every arm's weights are the same; words may differ."""
        if self.experiment != other.experiment or self.mixes.keys() != other.mixes.keys():
            return False
        return all(self.mixes[arm].weights() == other.mixes[arm].weights() for arm in self.mixes)

    def draw(self, seed: int) -> tuple[Assignment, Mix]:
        """The arm of the batch with this seed, and what it teaches."""
        shares = self.experiment.shares()
        arm = assign(shares, seed)
        return Assignment(arm=arm, probability=shares[arm]), self.mixes[arm]


def plan(standing: Standing, experiment: Experiment, gaps: Mapping[Level, float], exhausted: Collection[Level]) -> Plan:
    """Every arm's draft, bent by what is known of the data. Raises UnknownPlugin for an arm that is not installed."""
    drafts = {arm: registry.get(arm).draft(standing) for arm in standing.settings.arms}
    mixes = {arm: bend(arm, draft, gaps, exhausted, standing.settings) for arm, draft in drafts.items()}
    return Plan(experiment=experiment, mixes=mixes)


def first_plan(standing: Standing) -> Plan:
    """Before the curriculum's first word: the favoured arm, for a model that masters nothing."""
    beginner = Standing(standing.families, Mastery(), (), standing.settings)
    return plan(beginner, beginning(standing.settings), {}, ())

"""When a drop counts as a regression."""

from __future__ import annotations

from pydantic import Field

from ratchet.settings.section import Section


class RegressionSettings(Section):
    """Differences are fractions of 1."""

    alpha: float = Field(
        0.05, gt=0, lt=0.5, description="Chance that a checkpoint as good as its baselines is called worse anywhere."
    )
    critical_drop: float = Field(
        0.05, gt=0, lt=1, description="A drop proved to exceed this is critical: training rewinds."
    )
    loss_rise: float = Field(
        0.05,
        gt=0,
        description="A rise of the right answers' loss proved to exceed this, in nats a token, is a warning.",
    )
    loss_mastery: float = Field(
        0.5, gt=0, le=1, description="Levels count for the loss where the baseline is right so often, or more."
    )
    power: float = Field(
        0.8, gt=0.5, lt=1, description="Chance for which the smallest visible drop of a verdict is stated."
    )

"""Settings of the deployment gate: how much proof it asks for."""

from __future__ import annotations

from pydantic import Field, model_validator

from ratchet.settings.section import Section


class GateSettings(Section):
    """Error rates, margins, and the assumptions by which `ratchet config check` judges the size of the suites.

    Shares and differences are fractions of 1: a margin of 0.04 is four points.
    """

    alpha: float = Field(
        0.05, gt=0, lt=0.5, description="Chance that any model no better than one champion ever replaces it."
    )
    screen_alpha: float = Field(
        0.1, gt=0, le=0.5, description="One-sided level of the free screen on the eval suite, before confirm is opened."
    )
    margin: float = Field(
        0.04, gt=0, lt=0.5, description="Largest drop that a protected family's non-inferiority test tolerates."
    )
    mastery: float = Field(0.9, gt=0, le=1, description="Success rate from which a level counts as mastered.")
    gain: float = Field(0.05, gt=0, lt=1, description="Planning: the true gain that the gate must be able to see.")
    flip_share: float = Field(
        0.15, gt=0, le=1, description="Planning: share of all items whose grade differs between two checkpoints."
    )
    power: float = Field(0.8, gt=0.5, lt=1, description="Planning: the chance with which the gain must be seen.")

    @model_validator(mode="after")
    def _gain_fits_flips(self) -> GateSettings:
        if self.gain > self.flip_share:
            raise ValueError(
                f"gain {self.gain} needs at least as many flips, but flip_share is {self.flip_share}: "
                "lower gain or raise flip_share."
            )
        return self

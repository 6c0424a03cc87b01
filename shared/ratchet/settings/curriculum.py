"""What the next batches are made of."""

from __future__ import annotations

from pydantic import Field, model_validator

from ratchet.settings.section import Section


class CurriculumSettings(Section):
    """Thresholds of mastery, and the shares of the mix."""

    mastery: float = Field(0.9, gt=0, le=1, description="Success rate at which a level becomes mastered.")
    hysteresis: float = Field(0.05, ge=0, lt=1, description="A mastered level is lost again below mastery minus this.")
    mastery_items: int = Field(5, ge=1, description="Fewest probe items on which a level is judged.")
    frontier_share: float = Field(0.5, gt=0, le=1, description="Share of each family's first unmastered level.")
    lookahead_share: float = Field(0.1, ge=0, lt=1, description="Share of the level after the frontier.")
    exhausted_cap: float = Field(
        0.05, ge=0, le=1, description="Largest share of a level whose distinct items are used up."
    )
    coverage_shift: float = Field(
        0.5, ge=0, le=1, description="How strongly a coverage gap draws weight: at a gap of 1, this much more."
    )

    @model_validator(mode="after")
    def _shares_fit(self) -> CurriculumSettings:
        if self.frontier_share + self.lookahead_share > 1:
            raise ValueError(
                f"frontier_share {self.frontier_share} and lookahead_share {self.lookahead_share} exceed 1 together."
            )
        if self.hysteresis >= self.mastery:
            raise ValueError(f"hysteresis {self.hysteresis} must be below mastery {self.mastery}.")
        return self

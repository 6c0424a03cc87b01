"""Where mining looks for weak answers, and what it calls weak."""

from __future__ import annotations

from pydantic import Field, model_validator

from ratchet.settings.section import Section


class MiningSettings(Section):
    """Budget and thresholds of the search; how many items are handed on is queue.mined_items."""

    search_items: int = Field(
        240, ge=0, description="Fresh problems that the search asks a checkpoint; 0 mines the probe record alone."
    )
    round_items: int = Field(48, ge=1, description="Problems asked between two decisions of the search.")
    frontier_low: float = Field(0.2, ge=0, lt=1, description="Levels answered at a lower rate are out of reach.")
    frontier_high: float = Field(0.8, gt=0, le=1, description="Levels answered at a higher rate are not searched.")
    sure: float = Field(
        0.9, gt=0, le=1, description="Mean token probability from which a wrong answer is overconfident."
    )
    unsure: float = Field(0.5, ge=0, lt=1, description="Token probability below which a right answer is low-margin.")
    retest_items: int = Field(
        100, ge=0, description="Items of the set before, and as many random ones, that are asked again to compare."
    )
    remembered: int = Field(10, ge=0, description="Earlier sets whose items are not new any more.")

    @model_validator(mode="after")
    def _bounds(self) -> MiningSettings:
        if self.frontier_low >= self.frontier_high:
            raise ValueError(f"frontier_low {self.frontier_low} must be below frontier_high {self.frontier_high}.")
        return self

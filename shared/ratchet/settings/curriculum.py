"""What the next batches are made of."""

from __future__ import annotations

from pydantic import Field, model_validator

from ratchet.settings.section import Section

LOOKAHEAD_SHARE = 0.1
"""Share of the level after the frontier: enough to see whether it is ready, before it becomes the frontier itself."""


class CurriculumSettings(Section):
    """When a level is mastered, the shares of the mix, and the strategies that are compared by experiment."""

    mastery: float = Field(0.9, ge=0.1, le=1, description="Success rate at which a level becomes mastered.")
    frontier_share: float = Field(
        0.5, gt=0, le=1 - LOOKAHEAD_SHARE, description="Share of each family's first unmastered level."
    )
    replay_share: float = Field(
        0.2, gt=0, le=1, description="Share that the adaptive strategy spreads alike over all levels reached."
    )
    strategies: tuple[str, ...] = Field(
        ("progressive", "mixed", "reverse", "adaptive"),
        min_length=1,
        description="Strategies that are compared; `ratchet.strategies` plug-ins count. One alone is no experiment.",
    )
    favoured: str = Field(
        "progressive", description="The strategy that is used before anything is mastered, and expected to be the best."
    )
    exploration: float = Field(
        0.2, ge=0, le=1, description="Share of batches drawn evenly over the strategies while the experiment is open."
    )

    @model_validator(mode="after")
    def _strategies_fit(self) -> CurriculumSettings:
        if len(set(self.strategies)) < len(self.strategies):
            raise ValueError(f"strategies names one twice: {', '.join(self.strategies)}.")
        if self.favoured not in self.strategies:
            raise ValueError(f"favoured {self.favoured!r} is none of the strategies {', '.join(self.strategies)}.")
        return self

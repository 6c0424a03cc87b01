"""What the next batches are made of."""

from __future__ import annotations

from pydantic import Field, model_validator

from ratchet.settings.section import Section


class CurriculumSettings(Section):
    """Thresholds of mastery, the shares of the mix, and the experiment that compares strategies."""

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

    replay_share: float = Field(
        0.2, gt=0, le=1, description="Share that the adaptive arm spreads alike over all levels reached."
    )
    arms: tuple[str, ...] = Field(
        ("progressive", "mixed", "reverse", "adaptive"),
        min_length=1,
        description="Strategies that are compared; `ratchet.arms` plug-ins count. One alone is no experiment.",
    )
    favoured: str = Field(
        "progressive", description="The arm that is used before anything is mastered, and expected to be the best."
    )
    advantage: float = Field(
        2.0, ge=0, description="How much better the favoured arm is held to be at first, in spreads of one trial."
    )
    prior_trials: float = Field(2.0, gt=0, description="Trials that the expectation before any trial counts for.")
    exploration: float = Field(
        0.2, ge=0, le=1, description="Share of batches drawn evenly over the arms while the experiment is open."
    )
    half_life: float = Field(30.0, gt=0, description="Checkpoints after which a trial counts half: models change.")
    certainty: float = Field(0.95, gt=0.5, lt=1, description="Probability at which the experiment is decided.")
    trials_each: float = Field(2.0, ge=1, description="Fewest trials of each arm, as they count now, for it to end.")
    even_points: float = Field(
        0.5, gt=0, description="Arms that differ by less are even: points of the probe suite per 100,000 tokens."
    )

    @model_validator(mode="after")
    def _arms_fit(self) -> CurriculumSettings:
        if len(set(self.arms)) < len(self.arms):
            raise ValueError(f"arms names one twice: {', '.join(self.arms)}.")
        if self.favoured not in self.arms:
            raise ValueError(f"favoured {self.favoured!r} is none of the arms {', '.join(self.arms)}.")
        return self

    @model_validator(mode="after")
    def _shares_fit(self) -> CurriculumSettings:
        if self.frontier_share + self.lookahead_share > 1:
            raise ValueError(
                f"frontier_share {self.frontier_share} and lookahead_share {self.lookahead_share} exceed 1 together."
            )
        if self.hysteresis >= self.mastery:
            raise ValueError(f"hysteresis {self.hysteresis} must be below mastery {self.mastery}.")
        return self

"""Sections of data: the queue, generation, correction, diversity, and the curriculum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from ratchet.settings.section import Section


class QueueSettings(Section):
    """Depth counts examples: submitted, queued, and the untrained rest of the running batch."""

    low_water: int = Field(13_000, ge=1, description="Depth below which generation starts.")
    high_water: int = Field(38_000, ge=1, description="Generation never raises the depth above this.")
    batch_examples: int = Field(
        12_000, ge=1, description="Examples in a generated batch, and most rows in one of your tasks."
    )
    epoch_cap: int = Field(3_000, ge=1, description="How often the same item may be trained on, over all batches.")
    correction_share: float = Field(
        0.25, gt=0, lt=1, description="Largest share of correction examples in a correction batch; the rest is replay."
    )
    unjudged_limit: int = Field(
        20,
        ge=1,
        description="Training waits once this many checkpoints lack an evaluation (the judging host is unavailable).",
    )
    inbox: Path | None = Field(None, description="Folder whose files with rows are queued. Default: home/inbox.")

    @model_validator(mode="after")
    def _waters(self) -> QueueSettings:
        if self.low_water > self.high_water - self.batch_examples:
            raise ValueError(
                f"high_water {self.high_water} must leave room for a batch of {self.batch_examples} "
                f"above low_water {self.low_water}."
            )
        return self


class SourceSettings(Section):
    """One generator. The generator of each batch is drawn at random by the shares."""

    name: str = Field(min_length=1, description="A generator: tasks, teacher, script, or a plug-in.")
    share: float = Field(1.0, gt=0, description="Its share of the batches, relative to the other sources' shares.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options that the generator documents.")
    daily_tokens: int | None = Field(
        None, ge=1, description="It pauses once it has used this many tokens of its model server within a day."
    )


class GenerationSettings(Section):
    """Generators and budgets."""

    sources: tuple[SourceSettings, ...] = Field(
        (SourceSettings(name="tasks"),), min_length=1, description="Generators; `ratchet.generators` plug-ins count."
    )
    workers: int = Field(1, ge=1, le=64, description="Processes that make examples of task families at once.")
    cooldown_s: float = Field(0.0, ge=0, description="Shortest time between two batches generated of families.")
    hourly_examples: int | None = Field(
        None, ge=1, description="Most examples of families generated within an hour; passes over your rows are free."
    )
    replay_share: float = Field(
        0.15,
        ge=0,
        le=0.9,
        description="Share of a batch of your own rows that replays others against forgetting: the base model's "
        "general answers, tasks that are no longer taught, and families.",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> GenerationSettings:
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError(f"sources names one generator twice: {', '.join(names)}.")
        return self


class CorrectionSettings(Section):
    """Sampling and judgements; the share of correction examples in a batch is in the section queue."""

    samples: int = Field(
        4, ge=0, description="Answers sampled from the model for an example without a worked solution; 0 for none."
    )
    judged_share: float = Field(
        0.1, ge=0, lt=1, description="Largest share of a batch's correction examples that ask if an answer is right."
    )


class DiversitySettings(Section):
    """The history of texts is the file home/history/texts.sqlite."""

    near: float = Field(0.8, gt=0, le=1, description="Jaccard index from which two texts are near-duplicates.")
    history_examples: int = Field(
        1_000_000, ge=0, description="Newest examples that a batch is compared with; older ones are forgotten."
    )


LOOKAHEAD_SHARE = 0.1
"""Share of the level after the frontier: enough to see whether it is ready, before it becomes the frontier itself."""


class CurriculumSettings(Section):
    """When a level is mastered, the shares of the mix, and the strategies that are compared by experiment."""

    mastery: float = Field(0.9, ge=0.1, le=1, description="Success rate at which a level becomes mastered.")
    frontier_share: float = Field(
        0.5, gt=0, le=1 - LOOKAHEAD_SHARE, description="Share of each family's first unmastered level."
    )
    replay_share: float = Field(
        0.2, gt=0, le=1, description="Share that the adaptive strategy spreads evenly over all levels reached."
    )
    strategies: tuple[str, ...] = Field(
        ("progressive", "mixed", "reverse", "adaptive"),
        min_length=1,
        description="Strategies that are compared; `ratchet.strategies` plug-ins count. One needs no experiment.",
    )
    favoured: str = Field(
        "progressive",
        description="The strategy that is used before any level is mastered, and expected to be the best.",
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

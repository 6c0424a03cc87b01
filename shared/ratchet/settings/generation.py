"""Who makes the batches that training runs low of, and how much they may make."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from ratchet.settings.section import Section


class SourceSettings(Section):
    """One generator; which batches it makes is drawn at random."""

    name: str = Field(min_length=1, description="A generator: tasks, teacher, script, or a plug-in.")
    share: float = Field(1.0, gt=0, description="Its share of the batches, beside the other sources' shares.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options that the generator documents.")
    daily_tokens: int | None = Field(
        None, ge=1, description="It rests once it has used so many tokens of its model server within a day."
    )


class GenerationSettings(Section):
    """Generators and budgets."""

    sources: tuple[SourceSettings, ...] = Field(
        (SourceSettings(name="tasks"),), min_length=1, description="Generators; `ratchet.generators` plug-ins count."
    )
    workers: int = Field(1, ge=1, le=64, description="Processes that make examples of task families at once.")
    cooldown_s: float = Field(0.0, ge=0, description="Shortest time between two generated batches.")
    hourly_examples: int | None = Field(None, ge=1, description="Most examples generated within an hour.")

    @model_validator(mode="after")
    def _names_differ(self) -> GenerationSettings:
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError(f"sources names one generator twice: {', '.join(names)}.")
        return self

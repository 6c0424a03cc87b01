"""How much data waits for training, and what is asked for when it runs low."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from ratchet.settings.section import Section


class QueueSettings(Section):
    """Depth counts examples: submitted, queued, and the untrained rest of the running batch."""

    low_water: int = Field(13_000, ge=1, description="Below this many examples generation is called.")
    high_water: int = Field(38_000, ge=1, description="Generation never lifts the depth above this.")
    batch_examples: int = Field(12_000, ge=1, description="Examples in a generated batch.")
    epoch_cap: int = Field(3_000, ge=1, description="How often the same item may be trained on, over all batches.")
    mined_items: int = Field(150, ge=1, description="Most weak items that mining hands on from one checkpoint.")
    correction_share: float = Field(
        0.25, gt=0, lt=1, description="Largest share of correction examples in a correction batch; the rest is replay."
    )
    correction_spacing: int = Field(
        2, ge=0, description="Generated batches that must be queued between two correction batches."
    )
    correction_relatives: int = Field(8, ge=1, description="Most examples made from one mined item.")
    correction_examples: int = Field(1_000, ge=0, description="Most correction examples in one correction batch.")
    unjudged_limit: int = Field(
        20,
        ge=1,
        description="Training waits once so many checkpoints lack an evaluation (the judging host is away).",
    )
    inbox: Path | None = Field(None, description="Folder whose *.jsonl files are queued. Default: home/inbox.")

    @model_validator(mode="after")
    def _waters(self) -> QueueSettings:
        if self.low_water > self.high_water - self.batch_examples:
            raise ValueError(
                f"high_water {self.high_water} must leave room for a batch of {self.batch_examples} "
                f"above low_water {self.low_water}."
            )
        return self

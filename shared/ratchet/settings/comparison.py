"""What a checkpoint may cost, and whether averages of checkpoints are tried."""

from __future__ import annotations

from pydantic import Field, model_validator

from ratchet.settings.section import Section


class ComparisonSettings(Section):
    """Budgets of the ranking: a checkpoint that breaks one is ranked, and never deployed. Empty means no budget."""

    max_size_bytes: int | None = Field(None, ge=1, description="Most bytes of a checkpoint's files.")
    min_tokens_per_s: float | None = Field(
        None, gt=0, description="Fewest tokens a second that testing must have measured on the eval suite."
    )
    soup_of: int = Field(
        0,
        ge=0,
        le=16,
        description="Average the weights of so many of the best checkpoints into a candidate of its own; 0: never.",
    )

    @model_validator(mode="after")
    def _a_soup_has_ingredients(self) -> ComparisonSettings:
        if self.soup_of == 1:
            raise ValueError("soup_of 1 would be a copy: 0 switches soups off, 2 averages the best two.")
        return self

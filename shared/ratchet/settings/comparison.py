"""What a checkpoint may cost."""

from __future__ import annotations

from pydantic import Field

from ratchet.settings.section import Section


class ComparisonSettings(Section):
    """Budgets of the ranking: a checkpoint that exceeds one is ranked, and never deployed. Unset means no budget."""

    max_size_bytes: int | None = Field(None, ge=1, description="Most bytes of a checkpoint's files.")
    min_tokens_per_s: float | None = Field(
        None, gt=0, description="Fewest tokens a second that testing must have measured on the eval suite."
    )

"""The history of the diversity analyzer, and its threshold for near-duplicates."""

from __future__ import annotations

from pydantic import Field

from ratchet.settings.section import Section


class DiversitySettings(Section):
    """The history of texts is the file home/history/texts.sqlite."""

    near: float = Field(0.8, gt=0, le=1, description="Jaccard index from which two texts are near-duplicates.")
    history_examples: int = Field(
        1_000_000, ge=0, description="Newest examples that a batch is compared with; older ones are forgotten."
    )

"""What the diversity analyzer remembers, and what it calls a near-duplicate."""

from __future__ import annotations

from pydantic import Field

from ratchet.settings.section import Section


class DiversitySettings(Section):
    """The history of texts lies on disk, in home/history."""

    near: float = Field(0.8, gt=0, le=1, description="Jaccard index from which two texts are near-duplicates.")
    history_examples: int = Field(
        1_000_000, ge=0, description="Newest examples that a batch is compared with; older ones are forgotten."
    )
    embeddings_url: str | None = Field(
        None,
        description="Server with an OpenAI-compatible /v1/embeddings, as http://host:8000/v1; unset, coverage is not "
        "measured in a space of embeddings. Its key is inference.api_key.",
    )
    embeddings_model: str = Field("", description="The embeddings server's name of its model.")
    embeddings_rows: int = Field(
        512, ge=2, le=5_000, description="Most rows of a batch, and most items of the probe suite, that are embedded."
    )

"""A batch: an immutable JSONL artifact of examples, with where it came from."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Provenance(BaseModel):
    """Where a batch came from. ``parents`` are ids of what it was made from (batches, evaluations, a file's sha256)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: str = Field(min_length=1)
    version: str
    seed: int | None = None
    parents: tuple[str, ...] = ()
    counts: dict[str, int] = Field(default_factory=dict)
    """Examples of each kind that the generator tells apart."""

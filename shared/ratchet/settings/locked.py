"""What may never change once a line of checkpoints has begun."""

from __future__ import annotations

from pydantic import Field

from ratchet.settings.section import Section


class LockedSettings(Section):
    """What may never change once a line of checkpoints has begun. Unset means: as the base model has it.

    The first run checks these against the model on disk and writes them to the ledger; every later run is held to them.
    """

    base_model: str | None = Field(
        None, min_length=1, description="The base model's own name, where model.path is only where it lies."
    )
    model_architecture: str | None = Field(
        None, min_length=1, description="Architecture that the model's config.json must name, as Qwen3ForCausalLM."
    )
    max_context_length: int | None = Field(
        None, ge=8, description="Context in tokens that the line keeps to; at most the model's, at least max_length."
    )
    vocab_size: int | None = Field(None, ge=1, description="Rows of the embedding that config.json must name.")

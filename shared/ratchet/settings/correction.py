"""How examples are made of the model's mistakes."""

from __future__ import annotations

from pydantic import Field

from ratchet.settings.section import Section


class CorrectionSettings(Section):
    """Sampling and judgements; size and share of a correction batch are in the section queue."""

    samples: int = Field(
        4, ge=0, description="Answers sampled from the model for an example without a worked solution; 0 samples none."
    )
    judged_share: float = Field(
        0.1, ge=0, lt=1, description="Largest share of a batch's correction examples that ask if an answer is right."
    )

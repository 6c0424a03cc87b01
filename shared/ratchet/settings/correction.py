"""How lessons are made of mistakes, and when a class of them is given up."""

from __future__ import annotations

from pydantic import Field

from ratchet.settings.section import Section


class CorrectionSettings(Section):
    """Sampling, judgements and the stop rule; size and share of a correction batch are in the section queue."""

    samples: int = Field(
        4, ge=0, description="Answers sampled from the model for a lesson without a worked solution; 0 samples none."
    )
    sampled_lessons: int = Field(32, ge=0, description="Most lessons of a batch that answers are sampled for.")
    temperature: float = Field(0.8, gt=0, description="Temperature of the samples.")
    judged_share: float = Field(
        0.1, ge=0, lt=1, description="Largest share of the lessons that ask whether a given answer is right."
    )
    class_share: float = Field(
        0.4,
        gt=0,
        le=1,
        description="Largest share of the lessons that a batch may hold which one error class can have.",
    )
    impact_evaluations: int = Field(
        3, ge=1, description="Evaluations after a correction batch that measure its effect."
    )
    patience: int = Field(
        3, ge=1, description="Measured correction batches without a gain after which an error class is stopped."
    )
    pause: int = Field(
        6, ge=1, description="Correction batches that a stopped class sits out before it is tried again."
    )

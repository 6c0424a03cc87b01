"""The values of a verdict for pipelines. They can be read and written without numpy and scipy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ratchet.evaluation.noise_floor import NoiseFloor
from ratchet.gate.proof_values import FamilyProof, FrozenModel, GeneralProof, LevelHarm, ScoreProof, TargetProof

Answer = Literal["better", "not better", "worse", "cannot tell"]
EXIT_CODES: dict[Answer, int] = {"better": 0, "not better": 1, "worse": 2, "cannot tell": 3}

FORMAT = 1
"""Version of the JSON."""


class Verdict(FrozenModel):
    """The answer on ``candidate`` against ``base``, its reasons in sentences, and the tests that it rests on.

    ``items_needed`` is how many items could tell, where these could not; None if no number can be given.
    ``conditions`` are those under which each of the two was answered.
    """

    format: int = FORMAT
    verdict: Answer
    exit_code: int
    candidate: str
    base: str
    reasons: tuple[str, ...]
    items_needed: int | None = None
    alpha: float
    gain: float
    targets: tuple[TargetProof, ...]
    families: tuple[FamilyProof, ...]
    tasks: tuple[ScoreProof, ...]
    general: GeneralProof | None = None
    levels: tuple[LevelHarm, ...]
    noise: NoiseFloor | None = None
    conditions: dict[str, dict[str, str]] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()

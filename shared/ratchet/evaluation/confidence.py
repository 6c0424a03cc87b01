"""A model's confidence in a whole answer, from its tokens' log-probabilities. Without numpy, for use in servers."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, log1p
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ConfidenceKind = Literal["mean", "sum", "min", "tail"]
KINDS: tuple[ConfidenceKind, ...] = ("mean", "sum", "min", "tail")
CLIP = 1e-6
"""Confidences are clipped to this distance from 0 and 1 before they are recalibrated."""

MIN_ITEMS = 30
"""Fewest items to calibrate on, in each half and of each family: with fewer a rate of one half is known only to ± 18
points (95 %), and a fitted temperature says more about the items than about the model."""

TAIL = 4
"""The tail is one token in this many, the least certain ones."""


def answer_logprob(token_logprobs: Sequence[float], kind: ConfidenceKind) -> float:
    """One natural-log probability, at most 0, for an answer of at least one token.

    ``sum``: the probability of the whole answer. ``mean``: the geometric mean over its tokens. ``min``: its least
    certain token. ``tail``: the geometric mean over the least certain quarter of its tokens.
    """
    if kind == "min":
        found = min(token_logprobs)
    elif kind == "sum":
        found = sum(token_logprobs)
    else:
        kept = sorted(token_logprobs)
        if kind == "tail":
            kept = kept[: -(-len(kept) // TAIL)]
        found = sum(kept) / len(kept)
    return min(found, 0.0)


def least_margin(items: int) -> float:
    """The least distance from 0 and 1 of a confidence that rests on this many items; 0 items: unknown, as for
    calibrations of earlier versions."""
    return 1 / (items + 2) if items else CLIP


class Certainty(BaseModel):
    """The calibration deployed with a checkpoint: how to state a confidence, and below which one to abstain.

    A stated confidence is sigmoid(logit(exp(answer_logprob)) / temperature), but no nearer to 0 or 1 than the
    ``fitted_on`` items can show: by Laplace's rule of succession, after n successes in a row the next failure has
    probability 1 / (n + 2). When ``threshold`` was chosen, answers of at least this confidence were right with at least
    ``precision``; None if no threshold achieves that. ``items`` counts the items of each family, or task of the user,
    that the calibration was fitted and measured on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ConfidenceKind
    temperature: float = Field(gt=0)
    threshold: float | None
    precision: float = Field(gt=0, lt=1)
    fitted_on: int = Field(0, ge=0)
    items: dict[str, int] = Field(default_factory=dict)

    def covers(self, family: str) -> bool:
        """Whether there were enough items of this family to say something about its questions."""
        return self.items.get(family, 0) >= MIN_ITEMS

    def confidence(self, token_logprobs: Sequence[float]) -> float | None:
        """The stated confidence of an answer; None if its tokens have no log-probabilities."""
        if not token_logprobs:
            return None
        raw = min(max(exp(answer_logprob(token_logprobs, self.kind)), CLIP), 1 - CLIP)
        stated = 1 / (1 + exp(-(log(raw) - log1p(-raw)) / self.temperature))
        margin = least_margin(self.fitted_on)
        return min(max(stated, margin), 1 - margin)

    def should_abstain(self, confidence: float | None) -> bool | None:
        """Whether the confidence is below the threshold; None without a confidence or a threshold."""
        if self.threshold is None or confidence is None:
            return None
        return confidence < self.threshold

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


class Certainty(BaseModel):
    """The calibration deployed with a checkpoint: how to state a confidence, and below which one to abstain.

    A stated confidence is sigmoid(logit(exp(answer_logprob)) / temperature). When ``threshold`` was chosen, answers of
    at least this confidence were right with at least ``precision``; None if no threshold achieves that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ConfidenceKind
    temperature: float = Field(gt=0)
    threshold: float | None
    precision: float = Field(gt=0, lt=1)

    def confidence(self, token_logprobs: Sequence[float]) -> float | None:
        """The stated confidence of an answer; None if its tokens have no log-probabilities."""
        if not token_logprobs:
            return None
        raw = min(max(exp(answer_logprob(token_logprobs, self.kind)), CLIP), 1 - CLIP)
        return 1 / (1 + exp(-(log(raw) - log1p(-raw)) / self.temperature))

    def should_abstain(self, confidence: float | None) -> bool:
        """Whether the confidence is below the threshold; False if there is none."""
        return self.threshold is not None and (confidence is None or confidence < self.threshold)

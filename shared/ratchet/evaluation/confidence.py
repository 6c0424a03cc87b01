"""How sure a model is of a whole answer, from its tokens' log-probabilities. Without numpy, so that servers use it."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, log1p
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ConfidenceKind = Literal["mean", "sum", "min", "tail"]
KINDS: tuple[ConfidenceKind, ...] = ("mean", "sum", "min", "tail")
CERTAIN = 1e-6
"""Confidences are kept so far from 0 and 1 before they are recalibrated."""

TAIL = 4
"""One token in so many makes the tail."""


def answer_logprob(token_logprobs: Sequence[float], kind: ConfidenceKind) -> float:
    """One natural-log probability of an answer of one token at least, 0 at most.

    ``sum``: the probability of the very answer. ``mean``: its geometric mean over the tokens. ``min``: its least
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
    """What ships with a deployment: how to state a confidence, and from which one on an answer may be given.

    A stated confidence is sigmoid(logit(exp(answer_logprob)) / temperature). Answers of at least ``threshold`` were
    right with ``precision`` at the least when it was chosen; None where no threshold could promise that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ConfidenceKind
    temperature: float = Field(gt=0)
    threshold: float | None
    precision: float = Field(gt=0, lt=1)

    def confidence(self, token_logprobs: Sequence[float]) -> float | None:
        """The stated confidence of an answer; None where its tokens have no log-probabilities."""
        if not token_logprobs:
            return None
        raw = min(max(exp(answer_logprob(token_logprobs, self.kind)), CERTAIN), 1 - CERTAIN)
        return 1 / (1 + exp(-(log(raw) - log1p(-raw)) / self.temperature))

    def should_abstain(self, confidence: float | None) -> bool:
        """Whether an answer of that confidence falls below what was promised; never where nothing was."""
        return self.threshold is not None and (confidence is None or confidence < self.threshold)

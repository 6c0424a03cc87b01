"""How far stated confidence is from success: bins, ECE, MCE, Brier score and negative log-likelihood.

Confidences lie in [0, 1], outcomes are 0 or 1, both one-dimensional and equally long.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Floats = NDArray[np.float64]
Binning = Literal["equal_width", "equal_mass"]
TINY = 1e-6


class Bin(BaseModel):
    """One bin of a reliability diagram."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    confidence: float
    accuracy: float

    @property
    def gap(self) -> float:
        return abs(self.accuracy - self.confidence)


def reliability(confidence: Floats, outcome: Floats, bins: int = 10, binning: Binning = "equal_width") -> list[Bin]:
    """The non-empty bins in rising order. Equal-width bins are [0, 1/B), …, [1-1/B, 1]; equal-mass ones hold n/B."""
    order = np.argsort(confidence, kind="stable")
    ranked = confidence[order]
    if binning == "equal_width":
        edges = np.searchsorted(ranked, np.linspace(0, 1, bins + 1)[1:-1], side="left")
    else:
        edges = np.linspace(0, len(ranked), bins + 1)[1:-1].round().astype(int)
    return [
        Bin(n=len(members), confidence=float(confidence[members].mean()), accuracy=float(outcome[members].mean()))
        for members in np.split(order, edges)
        if len(members)
    ]


def ece(diagram: list[Bin]) -> float:
    """Expected calibration error: the gaps of the bins, weighted by how many items each holds."""
    return sum(b.n * b.gap for b in diagram) / sum(b.n for b in diagram)


def mce(diagram: list[Bin]) -> float:
    """Maximum calibration error: the largest gap of any bin."""
    return max(b.gap for b in diagram)


def brier(confidence: Floats, outcome: Floats) -> float:
    """Mean squared distance of confidence from outcome."""
    return float(np.mean((confidence - outcome) ** 2))


def nll(confidence: Floats, outcome: Floats) -> float:
    """Mean negative log-likelihood in nats; confidences are kept 1e-6 away from 0 and 1."""
    kept = np.clip(confidence, TINY, 1 - TINY)
    return float(-np.mean(outcome * np.log(kept) + (1 - outcome) * np.log1p(-kept)))

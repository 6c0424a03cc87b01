"""Isotonic recalibration: the non-decreasing function of confidence that fits the outcomes best."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.optimize import isotonic_regression

from ratchet.stats.calibration import Floats


class Isotonic(BaseModel):
    """Knots of the function; between them it is linear, beyond them constant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: tuple[float, ...]
    values: tuple[float, ...]

    def apply(self, confidence: Floats) -> Floats:
        return np.asarray(np.interp(confidence, self.at, self.values), dtype=np.float64)


def fit_isotonic(confidence: Floats, outcome: Floats) -> Isotonic:
    """Least squares over the non-decreasing functions, by pooling adjacent violators (Zadrozny and Elkan 2002).

    Equal confidences count as one place; of each level step only the two ends are kept as knots.
    """
    at, place, weights = np.unique(confidence, return_inverse=True, return_counts=True)
    mean = np.bincount(place, weights=outcome) / weights
    fitted = isotonic_regression(mean, weights=weights.astype(np.float64)).x
    inner = np.zeros(len(at), bool)
    inner[1:-1] = (fitted[1:-1] == fitted[:-2]) & (fitted[1:-1] == fitted[2:])
    return Isotonic(at=tuple(map(float, at[~inner])), values=tuple(map(float, np.clip(fitted[~inner], 0, 1))))

"""Recalibration of confidences on their logits: one temperature, or Platt's slope and intercept."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logit

from ratchet.stats.calibration import TINY, Floats, nll

LOG_TEMPERATURES = (-3.0, 3.0)
RIDGE = 1e-3


class Scaling(BaseModel):
    """confidence' = sigmoid(slope * logit(confidence) + intercept)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slope: float = 1.0
    intercept: float = 0.0

    @property
    def temperature(self) -> float:
        """The divisor of the logit; above 1 where the model is overconfident."""
        return 1 / self.slope

    def apply(self, confidence: Floats) -> Floats:
        scaled: Floats = expit(self.slope * logit(np.clip(confidence, TINY, 1 - TINY)) + self.intercept)
        return scaled


def fit_temperature(confidence: Floats, outcome: Floats) -> Scaling:
    """The temperature of least negative log-likelihood (Guo et al. 2017), between e^-3 and e^3."""
    found = minimize_scalar(
        lambda t: nll(Scaling(slope=float(np.exp(-t))).apply(confidence), outcome),
        bounds=LOG_TEMPERATURES,
        method="bounded",
    )
    return Scaling(slope=float(np.exp(-found.x)))


def fit_platt(confidence: Floats, outcome: Floats) -> Scaling:
    """Slope and intercept of least negative log-likelihood (Platt 1999).

    The slope stays positive, so that the order of confidences is kept; a slight ridge keeps both finite where every
    outcome is the same.
    """

    def loss(parameters: Floats) -> float:
        scaling = Scaling(slope=float(np.exp(parameters[0])), intercept=float(parameters[1]))
        return nll(scaling.apply(confidence), outcome) + RIDGE * float(parameters @ parameters)

    found = minimize(loss, np.zeros(2), bounds=[LOG_TEMPERATURES, (-10, 10)])
    return Scaling(slope=float(np.exp(found.x[0])), intercept=float(found.x[1]))

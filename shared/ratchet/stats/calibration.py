"""Calibration: how far stated confidence is from success, how to recalibrate it, and what abstaining gains.

Confidences are in [0, 1], outcomes are 0 or 1; both are one-dimensional and equally long. Items of equal confidence are
either all answered or all abstained from, so that the results do not depend on their order.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Floats = NDArray[np.float64]
Binning = Literal["equal_width", "equal_mass"]
CLIP = 1e-6


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
    """The non-empty bins in rising order. Equal-width bins are [0, 1/B), …, [1-1/B, 1]; equal-mass ones have n/B."""
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
    """Expected calibration error: the mean gap of the bins, weighted by their numbers of items."""
    return sum(b.n * b.gap for b in diagram) / sum(b.n for b in diagram)


def mce(diagram: list[Bin]) -> float:
    """Maximum calibration error: the largest gap of any bin."""
    return max(b.gap for b in diagram)


def brier(confidence: Floats, outcome: Floats) -> float:
    """Brier score: the mean squared difference of confidence and outcome."""
    return float(np.mean((confidence - outcome) ** 2))


def nll(confidence: Floats, outcome: Floats) -> float:
    """Mean negative log-likelihood in nats; confidences are clipped to 1e-6 from 0 and 1."""
    kept = np.clip(confidence, CLIP, 1 - CLIP)
    return float(-np.mean(outcome * np.log(kept) + (1 - outcome) * np.log1p(-kept)))


class Isotonic(BaseModel):
    """Knots of the function, which is linear between them and constant beyond."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: tuple[float, ...]
    values: tuple[float, ...]

    def apply(self, confidence: Floats) -> Floats:
        return np.asarray(np.interp(confidence, self.at, self.values), dtype=np.float64)


def fit_isotonic(confidence: Floats, outcome: Floats) -> Isotonic:
    """Least-squares fit of a non-decreasing function, by pooling adjacent violators (Zadrozny and Elkan 2002).

    Equal confidences count as one point; of each constant step only the two ends are kept as knots.
    """
    at, place, weights = np.unique(confidence, return_inverse=True, return_counts=True)
    mean = np.bincount(place, weights=outcome) / weights
    fitted = scipy.optimize.isotonic_regression(mean, weights=weights.astype(np.float64)).x
    inner = np.zeros(len(at), bool)
    inner[1:-1] = (fitted[1:-1] == fitted[:-2]) & (fitted[1:-1] == fitted[2:])
    return Isotonic(at=tuple(map(float, at[~inner])), values=tuple(map(float, np.clip(fitted[~inner], 0, 1))))


LOG_TEMPERATURES = (-3.0, 3.0)
RIDGE = 1e-3


class Scaling(BaseModel):
    """confidence' = sigmoid(slope * logit(confidence) + intercept)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slope: float = 1.0
    intercept: float = 0.0

    @property
    def temperature(self) -> float:
        """The divisor of the logit; above 1 if the model is overconfident."""
        return 1 / self.slope

    def apply(self, confidence: Floats) -> Floats:
        scaled: Floats = scipy.special.expit(
            self.slope * scipy.special.logit(np.clip(confidence, CLIP, 1 - CLIP)) + self.intercept
        )
        return scaled


def fit_temperature(confidence: Floats, outcome: Floats) -> Scaling:
    """The temperature that minimises the negative log-likelihood (Guo et al. 2017), between e^-3 and e^3."""
    found = scipy.optimize.minimize_scalar(
        lambda t: nll(Scaling(slope=float(np.exp(-t))).apply(confidence), outcome),
        bounds=LOG_TEMPERATURES,
        method="bounded",
    )
    return Scaling(slope=float(np.exp(-found.x)))


def fit_platt(confidence: Floats, outcome: Floats) -> Scaling:
    """The slope and intercept that minimise the negative log-likelihood (Platt 1999).

    The slope stays positive, so that the order of confidences is kept; a slight ridge penalty keeps both finite if all
    outcomes are the same.
    """

    def loss(parameters: Floats) -> float:
        scaling = Scaling(slope=float(np.exp(parameters[0])), intercept=float(parameters[1]))
        return nll(scaling.apply(confidence), outcome) + RIDGE * float(parameters @ parameters)

    found = scipy.optimize.minimize(loss, np.zeros(2), bounds=[LOG_TEMPERATURES, (-10, 10)])
    return Scaling(slope=float(np.exp(found.x[0])), intercept=float(found.x[1]))


ONE_SIDED = 0.95


class CoveragePoint(BaseModel):
    """Answering the ``n`` items with a confidence of at least ``threshold``: ``coverage`` is their share of all items,
    ``risk`` the share of wrong answers among them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float
    coverage: float
    risk: float
    n: int


def auroc(confidence: Floats, outcome: Floats) -> float | None:
    """Probability that a right answer has a higher confidence than a wrong one; ties count half (Mann, Whitney 1947).

    None if all outcomes are the same.
    """
    right = int(outcome.sum())
    wrong = len(outcome) - right
    if not right or not wrong:
        return None
    ranks = float(scipy.stats.rankdata(confidence)[outcome > 0].sum())
    return (ranks - right * (right + 1) / 2) / (right * wrong)


def risk_coverage(confidence: Floats, outcome: Floats) -> list[CoveragePoint]:
    """One point per distinct confidence, from the most confident answers to all of them (El-Yaniv and Wiener 2010)."""
    order = np.argsort(-confidence, kind="stable")
    ranked, wrong = confidence[order], np.cumsum(1 - outcome[order])
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    return [
        CoveragePoint(
            threshold=float(ranked[i]),
            coverage=float((i + 1) / len(order)),
            risk=float(wrong[i] / (i + 1)),
            n=int(i) + 1,
        )
        for i in last
    ]


def area_under(curve: list[CoveragePoint]) -> float:
    """Mean risk over all coverages; a point's risk applies from the previous point's coverage on. Lower is better."""
    starts = [0.0, *(point.coverage for point in curve[:-1])]
    return sum(point.risk * (point.coverage - start) for point, start in zip(curve, starts, strict=True))


def downsampled(curve: list[CoveragePoint], points: int = 20) -> list[CoveragePoint]:
    """About ``points`` points of the curve, evenly distributed over coverage, including the last one."""
    kept: dict[int, CoveragePoint] = {}
    for point in curve:
        kept.setdefault(int(np.ceil(point.coverage * points - 1e-9)), point)
    kept[points] = curve[-1]
    return [kept[key] for key in sorted(kept)]


def threshold_for(curve: list[CoveragePoint], precision: float) -> CoveragePoint | None:
    """The point of highest coverage whose precision by Wilson's lower bound (95 %, one-sided) is sufficient.

    None if no point reaches it, because of too few items or a model that is never confident enough.
    """
    good = [point for point in curve if _least(point) >= precision]
    return max(good, key=lambda point: point.coverage, default=None)


def _least(point: CoveragePoint) -> float:
    z, n, rate = float(scipy.special.ndtri(ONE_SIDED)), point.n, 1 - point.risk
    centre = rate + z * z / (2 * n)
    return float((centre - z * np.sqrt(max(rate * (1 - rate), 0.0) / n + z * z / (4 * n * n))) / (1 + z * z / n))

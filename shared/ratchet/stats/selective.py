"""Answering only when sure: how well confidence ranks right above wrong, and what abstaining buys.

Confidences and outcomes (0 or 1) are one-dimensional and equally long. Items of one confidence are answered together or
not at all, so that nothing depends on their order.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.special import ndtri
from scipy.stats import rankdata

from ratchet.stats.calibration import Floats

ONE_SIDED = 0.95


class CoveragePoint(BaseModel):
    """Answering the ``n`` items of at least ``threshold`` covers that share of all and is wrong with ``risk``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float
    coverage: float
    risk: float
    n: int


def auroc(confidence: Floats, outcome: Floats) -> float | None:
    """Chance that a right answer has more confidence than a wrong one, ties counting half (Mann and Whitney 1947).

    None where all outcomes are the same.
    """
    right = int(outcome.sum())
    wrong = len(outcome) - right
    if not right or not wrong:
        return None
    ranks = float(rankdata(confidence)[outcome > 0].sum())
    return (ranks - right * (right + 1) / 2) / (right * wrong)


def risk_coverage(confidence: Floats, outcome: Floats) -> list[CoveragePoint]:
    """A point for each distinct confidence, from the surest answers alone to all of them (El-Yaniv and Wiener 2010)."""
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
    """Mean risk over all coverages: each point's risk holds from the coverage before it on. Lower is better."""
    starts = [0.0, *(point.coverage for point in curve[:-1])]
    return sum(point.risk * (point.coverage - start) for point, start in zip(curve, starts, strict=True))


def thinned(curve: list[CoveragePoint], points: int = 20) -> list[CoveragePoint]:
    """About so many points of the curve, evenly over coverage, the last one always."""
    kept: dict[int, CoveragePoint] = {}
    for point in curve:
        kept.setdefault(int(np.ceil(point.coverage * points - 1e-9)), point)
    kept[points] = curve[-1]
    return [kept[key] for key in sorted(kept)]


def threshold_for(curve: list[CoveragePoint], precision: float) -> CoveragePoint | None:
    """The point of most coverage whose precision is at least so much by Wilson's lower bound (95 %, one-sided).

    None where no point reaches it: too few items, or a model that is never sure enough.
    """
    good = [point for point in curve if _least(point) >= precision]
    return max(good, key=lambda point: point.coverage, default=None)


def _least(point: CoveragePoint) -> float:
    z, n, rate = float(ndtri(ONE_SIDED)), point.n, 1 - point.risk
    centre = rate + z * z / (2 * n)
    return float((centre - z * np.sqrt(max(rate * (1 - rate), 0.0) / n + z * z / (4 * n * n))) / (1 + z * z / n))

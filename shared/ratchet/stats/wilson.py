"""Wilson's score interval of a proportion."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

from ratchet.errors import EmptyEvaluation
from ratchet.stats.interval import Interval


def wilson(correct: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson (1927). Raises EmptyEvaluation at n = 0: a rate of nothing is not a rate."""
    if n == 0:
        raise EmptyEvaluation("no item was graded, so there is no rate to put an interval around.")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate, shrink = correct / n, 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / shrink
    half = z * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / shrink
    return Interval(
        low=0.0 if correct == 0 else centre - half,
        high=1.0 if correct == n else centre + half,
        confidence=confidence,
    )

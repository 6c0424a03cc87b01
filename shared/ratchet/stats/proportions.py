"""Confidence intervals of a proportion, and of the difference of two independent ones, with the standard library alone.

The command line and the metrics use them without importing numpy or scipy. Comparisons on the same items are in
paired_tests.
"""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

from pydantic import BaseModel, ConfigDict

from ratchet.errors import EmptyEvaluation


class Interval(BaseModel):
    """A two-sided interval, both ends included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float
    confidence: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def wilson(correct: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (1927). Raises EmptyEvaluation at n = 0."""
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


def newcombe(first: int, of_first: int, second: int, of_second: int, confidence: float = 0.95) -> Interval:
    """Interval of first/of_first minus second/of_second, two independent proportions.

    Newcombe's hybrid score method (Statistics in Medicine 17:873-890, 1998, method 10) combines the two Wilson
    intervals. Raises EmptyEvaluation where either has no items.
    """
    one, other = wilson(first, of_first, confidence), wilson(second, of_second, confidence)
    p, q = first / of_first, second / of_second
    return Interval(
        low=p - q - sqrt((p - one.low) ** 2 + (other.high - q) ** 2),
        high=p - q + sqrt((one.high - p) ** 2 + (q - other.low) ** 2),
        confidence=confidence,
    )

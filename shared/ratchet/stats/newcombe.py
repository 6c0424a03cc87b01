"""The difference of two independent proportions, by Newcombe's hybrid score method.

Statistics in Medicine 17:873-890 (1998), method 10: the two Wilson intervals are combined; it needs no scipy.
"""

from __future__ import annotations

from math import sqrt

from ratchet.stats.interval import Interval
from ratchet.stats.wilson import wilson


def newcombe(first: int, of_first: int, second: int, of_second: int, confidence: float = 0.95) -> Interval:
    """Interval of first/of_first minus second/of_second. Raises EmptyEvaluation where either has no items."""
    one, other = wilson(first, of_first, confidence), wilson(second, of_second, confidence)
    p, q = first / of_first, second / of_second
    return Interval(
        low=p - q - sqrt((p - one.low) ** 2 + (other.high - q) ** 2),
        high=p - q + sqrt((one.high - p) ** 2 + (q - other.low) ** 2),
        confidence=confidence,
    )

"""What a paired comparison of n items can see: exact power of McNemar's one-sided test, and a rough size.

The number of flips is binomial and the gains among them are binomial again, so power is a sum over the number of flips.
"""

from __future__ import annotations

from functools import cache
from math import ceil, sqrt
from statistics import NormalDist

import numpy as np
from scipy.stats import binom


@cache
def superiority_power(n: int, gain: float, flip_share: float, alpha: float) -> float:
    """Chance that a model truly better by ``gain``, differing on ``flip_share`` of the items, is found better."""
    flips = np.arange(n + 1)
    fewest_gains = binom.isf(alpha, flips, 0.5) + 1
    won_share = (flip_share + gain) / (2 * flip_share)
    return float(binom.pmf(flips, n, flip_share) @ binom.sf(fewest_gains - 1, flips, won_share))


def connor_items(gain: float, flip_share: float, alpha: float, power: float) -> int:
    """Connor's sample size (Biometrics 43:207-211, 1987), a little small for the exact test."""
    normal = NormalDist()
    spread = normal.inv_cdf(1 - alpha) * sqrt(flip_share) + normal.inv_cdf(power) * sqrt(flip_share - gain**2)
    return ceil((spread / gain) ** 2)


def smallest_detectable(n: int, flip_share: float, alpha: float, power: float) -> float | None:
    """The smallest true difference seen with ``power``, to a tenth of a point.

    A difference cannot exceed the share of flips, so where flips are rarer than the answer they are as many as it.
    None where not even a difference on every item would be seen.
    """
    low, high = 0, 1001
    while high - low > 1:
        middle = (low + high) // 2
        difference = middle / 1000
        seen = superiority_power(n, difference, max(flip_share, difference), alpha) >= power
        low, high = (low, middle) if seen else (middle, high)
    return None if high > 1000 else high / 1000

"""Is a model not worse by more than a margin? "Not significantly worse" does not answer that; this does."""

from __future__ import annotations

from functools import cache
from math import ceil, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from ratchet.stats.difference import tango_z

NEGLIGIBLE = 1e-12


def noninferiority_p(gains: ArrayLike, losses: ArrayLike, n: ArrayLike, margin: float) -> NDArray[np.float64]:
    """One-sided p of "the true difference is -margin or below". At most alpha exactly if lower_bound >= -margin."""
    return np.asarray(ndtr(-tango_z(gains, losses, n, -margin)), dtype=np.float64)


def items_needed(flip_share: float, margin: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Items for an equal model to pass with about ``power``: (z_alpha + z_power)^2 * flip_share / margin^2.

    At 5 % and 80 % the square is 6.18. Where flips are few the exact power is a little lower (73 % at 194 items).
    """
    normal = NormalDist()
    z = normal.inv_cdf(1 - alpha) + normal.inv_cdf(power)
    return max(ceil(z * z * flip_share / margin**2), fewest_items(margin, alpha))


def affordable_alpha(n: int, flip_share: float, margin: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The level at which n items still give an equal model about ``power``: alpha from items_needed on.

    With fewer items it rises, so that both errors stay in balance, to 1 - power at most: whatever n is, a model worse
    by the margin is still refused with the chance ``power``.
    """
    if n >= items_needed(flip_share, margin, alpha, power):
        return alpha
    normal = NormalDist()
    balanced = 1 - normal.cdf(margin * sqrt(n / flip_share) - normal.inv_cdf(power))
    return min(max(balanced, alpha), 1 - power)


def fewest_items(margin: float, alpha: float = 0.05) -> int:
    """Below so many items not even an answer-for-answer equal model passes: there is nothing to prove it with."""
    z = NormalDist().inv_cdf(1 - alpha)
    return ceil(z * z * (1 - margin) / margin)


@cache
def noninferiority_power(
    n: int, flip_share: float, margin: float, alpha: float = 0.05, difference: float = 0.0
) -> float:
    """Exact chance to pass at a true ``difference``, by adding up every likely outcome of n items.

    With ``difference = -margin`` it is the test's actual level.
    """
    if n == 0:
        return 0.0
    total = np.arange(int(binom.isf(NEGLIGIBLE, n, flip_share)) + 1)
    flips, gains = np.meshgrid(total, total, indexing="ij")
    possible = gains <= flips
    z = np.where(possible, tango_z(gains, np.where(possible, flips - gains, 0), n, -margin), -np.inf)
    passes = z >= -ndtri(alpha)
    fewest_gains = np.where(passes.any(axis=1), passes.argmax(axis=1), n + 1)
    won_share = (flip_share + difference) / (2 * flip_share)
    return float(binom.pmf(total, n, flip_share) @ binom.sf(fewest_gains - 1, total, won_share))

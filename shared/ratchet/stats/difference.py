"""The difference of two success rates measured on the same items, with its confidence bounds.

Tango's score method (Statistics in Medicine 17:891-908, 1998): the difference is tested at every hypothetical value
with the variance that is most likely under that very value. It is defined with no flips at all, and enumerating every
outcome shows its one-sided level of 5 % to stay under 5.8 %, but for the corner n * margin = 2.7 with no gains at all,
where it touches 6.8 % (tests/unit/stats/test_difference.py). Bounds and tests are the same statistic, so they agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from ratchet.stats.interval import Interval

PARTS, ROUNDS = 64, 6  # 64^6: bounds to ten decimals


def tango_z(gains: ArrayLike, losses: ArrayLike, n: ArrayLike, difference: ArrayLike) -> NDArray[np.float64]:
    """Score statistic of the hypothesis that the true difference, gains minus losses over n, is ``difference``.

    Standard normal under it; positive where the data lie above it. Element-wise.
    """
    b, c, size, delta = (np.asarray(x, float) for x in (gains, losses, n, difference))
    linear = (2 * size - b + c) * delta - b - c
    product = c * delta * (1 - delta)
    likely_losses = (np.sqrt(np.maximum(linear**2 + 8 * size * product, 0.0)) - linear) / (4 * size)
    variance = size * (2 * likely_losses + delta * (1 - delta))
    distance = b - c - size * delta
    with np.errstate(divide="ignore", invalid="ignore"):
        z = distance / np.sqrt(np.maximum(variance, 0.0))
    return np.asarray(np.where(np.abs(distance) < 1e-12 * size, 0.0, z), dtype=np.float64)


def lower_bound(gains: ArrayLike, losses: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> NDArray[np.float64]:
    """The smallest difference that a one-sided test at ``alpha`` does not exclude. Element-wise.

    Below the estimate the statistic falls with the difference, so the bracket is cut into 64 parts again and again.
    """
    b, c, size, level = np.broadcast_arrays(*(np.asarray(x, float) for x in (gains, losses, n, alpha)))
    critical = -ndtri(level)
    low = np.full(b.shape, -1.0)
    width = (b - c) / size - low
    cuts = np.arange(1, PARTS) / PARTS
    for _ in range(ROUNDS):
        tried = low[..., None] + width[..., None] * cuts
        excluded = tango_z(b[..., None], c[..., None], size[..., None], tried) > critical[..., None]
        low = low + width * excluded.sum(axis=-1) / PARTS
        width = width / PARTS
    return np.asarray(low + width / 2, dtype=np.float64)


def upper_bound(gains: ArrayLike, losses: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> NDArray[np.float64]:
    """The largest difference not excluded: the mirror image of lower_bound."""
    return -lower_bound(losses, gains, n, alpha)


def difference_intervals(
    gains: Sequence[int], losses: Sequence[int], n: Sequence[int], confidence: float = 0.95
) -> list[Interval]:
    """Two-sided score interval of each difference."""
    tail = (1 - confidence) / 2
    lows, highs = lower_bound(gains, losses, n, tail), upper_bound(gains, losses, n, tail)
    return [
        Interval(low=float(low), high=float(high), confidence=confidence) for low, high in zip(lows, highs, strict=True)
    ]


def difference_interval(gains: int, losses: int, n: int, confidence: float = 0.95) -> Interval:
    """Two-sided score interval of one difference."""
    return difference_intervals([gains], [losses], [n], confidence)[0]

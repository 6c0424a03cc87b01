"""Intervals of the difference of two models on the same items, with the standard library alone.

The numbers are those of paired_tests and paired_scores, which have the sources of the methods and take arrays. The page
and the command line show a few intervals, for which they need not load numpy and scipy: 30 MB, and half a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import erfc, exp, inf, log, pi, sqrt
from statistics import NormalDist

from ratchet.evaluation.record import Metric
from ratchet.stats.proportions import Interval

BOUNDS: dict[Metric, float] = {"accuracy": 1.0, "loss": 0.5, "judge": 1.0}
"""Where differences of scores are clipped. Half a nat a token is far more than what two neighbouring checkpoints differ
by."""

_BITS = 34
"""Halvings of a bracket of width 2: bounds to ten decimals."""
_STEPS = 60
"""Of the search for a saddlepoint; it takes about ten."""


def difference_interval(gains: int, losses: int, n: int, confidence: float = 0.95) -> Interval:
    """Two-sided score interval of the difference of two rates (Tango), as that of paired_tests."""
    critical = NormalDist().inv_cdf(0.5 + confidence / 2)
    low = _last_excluded(-1.0, (gains - losses) / n, lambda tried: _tango_z(gains, losses, n, tried) > critical)
    high = _last_excluded(-1.0, (losses - gains) / n, lambda tried: _tango_z(losses, gains, n, tried) > critical)
    return Interval(low=low, high=-high, confidence=confidence)


@lru_cache(maxsize=32)
def mean_interval(differences: tuple[float, ...], bound: float, confidence: float = 0.95) -> Interval:
    """Two-sided interval of the mean of the clipped differences (Gaffke), as that of paired_scores."""
    tail = (1 - confidence) / 2
    values = [min(bound, max(-bound, value)) for value in differences]
    low = _mean_lower_bound(values, tail, bound)
    return Interval(low=low, high=-_mean_lower_bound([-value for value in values], tail, bound), confidence=confidence)


def _last_excluded(low: float, high: float, is_excluded: Callable[[float], bool]) -> float:
    """Where the values that a test excludes end, between ``low`` and ``high``."""
    for _ in range(_BITS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_excluded(middle) else (low, middle)
    return (low + high) / 2


def _tango_z(gains: int, losses: int, n: int, difference: float) -> float:
    distance = gains - losses - n * difference
    if abs(distance) < 1e-12 * n:
        return 0.0
    linear = (2 * n - gains + losses) * difference - gains - losses
    product = losses * difference * (1 - difference)
    likely_losses = (sqrt(max(linear**2 + 8 * n * product, 0.0)) - linear) / (4 * n)
    variance = n * (2 * likely_losses + difference * (1 - difference))
    return distance / sqrt(variance) if variance > 0 else inf if distance > 0 else -inf


def _mean_lower_bound(values: Sequence[float], alpha: float, bound: float) -> float:
    mean = sum(values) / len(values)
    return _last_excluded(-bound, mean, lambda tried: _mean_above_p(values, tried, bound) <= alpha)


def _mean_above_p(values: Sequence[float], threshold: float, bound: float) -> float:
    """One-sided p of "the true mean is at most the threshold", by Lugannani and Rice's formula."""
    if threshold <= -bound:
        return 0.0
    weights = [value - threshold for value in values]
    weights.append(-bound - threshold)
    if max(weights) <= 1e-12 * bound:
        return 1.0
    t = _saddlepoint(weights)
    ratios = [a / (1 - a * t) for a in weights]
    curvature = sum(ratio * ratio for ratio in ratios)
    w = sqrt(max(2 * sum(log(1 - a * t) for a in weights), 0.0)) * (1 if t > 0 else -1)
    if abs(w) < 1e-3:
        third = 2 * sum(ratio * ratio * ratio for ratio in ratios)
        return min(1.0, max(0.0, 0.5 + third / (6 * sqrt(2 * pi) * curvature * sqrt(curvature))))
    density = exp(-w * w / 2) / sqrt(2 * pi)
    return min(1.0, max(0.0, erfc(-w / sqrt(2)) / 2 + density * (1 / w - 1 / (t * sqrt(curvature)))))


def _saddlepoint(weights: Sequence[float]) -> float:
    """Where sum(a / (1 - a t)), which increases in t, is 0: by Newton's steps, halving where one leaves the bracket."""
    low, high = (1 - 1e-12) / min(weights), (1 - 1e-12) / max(weights)
    t = 0.0
    for _ in range(_STEPS):
        ratios = [a / (1 - a * t) for a in weights]
        slope, steepness = sum(ratios), sum(ratio * ratio for ratio in ratios)
        low, high = (t, high) if slope < 0 else (low, t)
        step = t - slope / steepness
        if abs(step - t) <= 1e-13 * (high - low) or step == t:
            break
        t = step if low < step < high else (low + high) / 2
    return t

"""Paired tests of scores that are not right or wrong: losses in nats per token, preferences of an LLM judge.

The data are the differences of two models' scores on the same items, clipped at ± ``bound``. The hypotheses are about
the true mean of the clipped differences, so that a few huge outliers decide nothing.

The test is Gaffke's for the mean of a bounded variable (Three test statistics for a nonparametric one-sided hypothesis
on the mean of a nonnegative variable, Mathematical Methods of Statistics 14:451-467, 2005; as a confidence bound:
Learned-Miller and Thomas, arXiv 1905.06208, 2019): to the n differences it adds one at the lower bound, weights all by
a flat Dirichlet distribution, and takes the probability that the weighted mean is at most the one to exclude. The
added difference stands for the harm that n items may have missed. A t-test lacks it: where one item in fifty is much
worse and the others are slightly better, twenty items show no bad one in two of three suites, and it is sure of a gain
that does not exist. That Gaffke's p is valid for every distribution and every n is a conjecture without a known
counterexample; ``benchmarks/gate`` has its error rates beside those of the t-test for skewed and heavy-tailed
differences. With many items it is nearly as powerful as the t-test.
"""

from __future__ import annotations

from math import ceil, sqrt
from statistics import NormalDist

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from ratchet.stats.paired_intervals import BOUNDS as BOUNDS
from ratchet.stats.proportions import Interval

Floats = NDArray[np.float64]

_HALVINGS = 40
_PARTS, _ROUNDS = 32, 6  # 32^6: bounds to nine decimals


def clipped(differences: ArrayLike, bound: float) -> Floats:
    """The differences within ± bound."""
    return np.clip(np.asarray(differences, np.float64), -bound, bound)


def mean_above_p(differences: ArrayLike, threshold: ArrayLike, bound: float) -> Floats:
    """One-sided p of "the true mean of the clipped differences is at most ``threshold``", over the last axis.

    Thresholds are broadcast against the other axes. The weighted mean is at most the threshold where a weighted sum of
    independent exponential variables is at most 0. Its distribution is computed by Lugannani and Rice's saddlepoint
    formula (Advances in Applied Probability 12:475-490, 1980), to about 5 % of p.
    """
    values = clipped(differences, bound)
    level = np.broadcast_to(
        np.asarray(threshold, np.float64), np.broadcast_shapes(np.shape(threshold), values.shape[:-1])
    )
    values = np.broadcast_to(values, (*level.shape, values.shape[-1])) - level[..., None]
    weights = np.concatenate([values, (-bound - level)[..., None]], axis=-1)
    p = np.ones(level.shape)
    is_impossible = level <= -bound
    p[is_impossible] = 0.0
    has_both_signs = ~is_impossible & (weights.max(axis=-1) > 1e-12 * bound)
    p[has_both_signs] = _below_zero(weights[has_both_signs])
    return p


def _below_zero(a: Floats) -> Floats:
    """Probability that sum(a * E) <= 0 for independent standard exponential E; rows of ``a`` have both signs."""
    t = _saddlepoint(a)
    u = 1 - a * t[:, None]
    ratio = a / u
    curvature, third = (ratio**2).sum(axis=-1), 2 * (ratio**3).sum(axis=-1)
    w = np.sign(t) * np.sqrt(np.maximum(2 * np.log(u).sum(axis=-1), 0.0))
    v = t * np.sqrt(curvature)
    at_mean = np.abs(w) < 1e-3
    safe_w, safe_v = np.where(at_mean, 1.0, w), np.where(at_mean, 1.0, v)
    density = np.exp(-(w**2) / 2) / np.sqrt(2 * np.pi)
    tail = scipy.special.ndtr(w) + density * (1 / safe_w - 1 / safe_v)
    limit = 0.5 + third / (6 * np.sqrt(2 * np.pi) * curvature**1.5)
    return np.asarray(np.clip(np.where(at_mean, limit, tail), 0.0, 1.0), np.float64)


def _saddlepoint(a: Floats) -> Floats:
    """Where the derivative of -sum(log(1 - a t)), which increases in t, is 0; by halving."""
    low, high = (1 - 1e-12) / a.min(axis=-1), (1 - 1e-12) / a.max(axis=-1)
    for _ in range(_HALVINGS):
        t = (low + high) / 2
        rising = (a / (1 - a * t[:, None])).sum(axis=-1) < 0
        low, high = np.where(rising, t, low), np.where(rising, high, t)
    return np.asarray((low + high) / 2, np.float64)


def mean_lower_bound(differences: ArrayLike, alpha: float, bound: float) -> float:
    """The smallest mean that a one-sided test at ``alpha`` does not exclude, to nine decimals of the bound.

    As p grows with the mean, the bracket is repeatedly divided into ``_PARTS`` parts.
    """
    values = clipped(differences, bound)
    low, width = -bound, float(values.mean()) + bound
    for _ in range(_ROUNDS):
        tried = low + width * np.arange(1, _PARTS) / _PARTS
        low += width * int((mean_above_p(values, tried, bound) <= alpha).sum()) / _PARTS
        width /= _PARTS
    return low + width / 2


def mean_upper_bound(differences: ArrayLike, alpha: float, bound: float) -> float:
    """The largest mean that is not excluded, by symmetry."""
    return -mean_lower_bound(-clipped(differences, bound), alpha, bound)


def mean_interval(differences: ArrayLike, bound: float, confidence: float = 0.95) -> Interval:
    """Two-sided interval of the mean of the clipped differences."""
    tail = (1 - confidence) / 2
    return Interval(
        low=mean_lower_bound(differences, tail, bound),
        high=mean_upper_bound(differences, tail, bound),
        confidence=confidence,
    )


def smallest_gain(n: int, spread: float, alpha: float, power: float, bound: float) -> float | None:
    """The smallest true gain that n items prove with ``power``; None if they prove none within the bound.

    ``spread`` is the standard deviation of the clipped differences. By a normal approximation, which is within a tenth
    of the simulated gain from 40 items on, and up to a third above it with 20 items at small alphas.
    """
    if n < 1 or not _proves(n, bound, spread, alpha, power, bound):
        return None
    low, high = 0.0, bound
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if _proves(n, middle, spread, alpha, power, bound) else (middle, high)
    return high


def scores_needed(gain: float, spread: float, alpha: float, power: float, bound: float) -> int:
    """Items to prove this gain with ``power``, about, to a twentieth."""
    n = 1
    while not _proves(n, gain, spread, alpha, power, bound):
        n = max(n + 1, ceil(n * 1.05))
    return n


def affordable_margin(n: int, spread: float, alpha: float, power: float, bound: float) -> float:
    """The smallest margin within which an equal model is proved not worse with about ``power``, at most the bound."""
    low, high = 0.0, bound
    for _ in range(_HALVINGS):
        margin = (low + high) / 2
        passes = _proves(n, margin, spread, alpha, power, bound - margin)
        low, high = (low, margin) if passes else (margin, high)
    return high


def _proves(n: int, distance: float, spread: float, alpha: float, power: float, missed: float) -> bool:
    """Whether a mean this far above the threshold is proved with ``power``, if the added difference is ``missed`` below
    it. The weighted sum has mean n * distance - missed and second moments of the weights as variance.
    """
    normal = NormalDist()
    unlucky = n * distance - missed - normal.inv_cdf(power) * spread * sqrt(n)
    return unlucky >= normal.inv_cdf(1 - alpha) * sqrt(n * (spread**2 + distance**2) + missed**2)

"""Which curriculum arm teaches most for a token: trials, the posterior over arms, and what share each arm gets next.

A switchback experiment. Batches are assigned to arms at random; a trial is the paired gain on the probe suite from the
checkpoint before to the one after, for each 100,000 tokens trained in between. Its outcome is modelled as the arm's
mean, plus a trend that all arms share (gains shrink as a model learns), plus noise:

    y = mu[arm] + trend * (age - mean age) + noise,   age in checkpoints

a linear regression with the conjugate normal-inverse-gamma prior (Gelman et al., Bayesian Data Analysis, 3rd ed.,
14.2), so that the means, and every difference of two, have Student distributions. A trial's weight halves with every
half-life of age (discounting as in Raj and Kalyani, Taming Non-stationary Bandits, 2017), and a short segment, whose
gain for a token is noisier, weighs less. Shares follow Thompson (1933): the probability that the arm is the best,
with an even part for exploration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray
from ratchet.settings.curriculum import CurriculumSettings
from scipy.special import stdtr, stdtrit

from datagen.experiment import FINISHED, ArmResult, Comparison, Experiment, State, Trial

Floats = NDArray[np.float64]

CREDIBLE = 0.95
DRAWS = 20_000
_TREND_PRECISION = 0.005
"""Precision of the prior of the trend over one half-life, centred on none and wide."""
_SPREAD_PRIOR = 1.0
"""The prior's shape: its guess of the noise counts for two trials."""


@dataclass(frozen=True)
class Posterior:
    """Student distribution of the arms' means, in the order of ``arms``: location, scale matrix, degrees of freedom."""

    arms: tuple[str, ...]
    mean: Floats
    scale: Floats
    freedom: float
    weight: Floats

    def probability_best(self, seed: int = 0) -> Floats:
        """How often each arm's mean is the highest, of DRAWS joint draws."""
        random = np.random.default_rng(seed)
        normal = random.multivariate_normal(np.zeros(len(self.arms)), self.scale, DRAWS, method="cholesky")
        spread = np.sqrt(self.freedom / random.chisquare(self.freedom, DRAWS))
        winners = np.argmax(self.mean + normal * spread[:, None], axis=1)
        return np.asarray(np.bincount(winners, minlength=len(self.arms)) / DRAWS)

    def difference(self, one: int, other: int) -> tuple[float, float]:
        """Location and scale of the difference of two means."""
        variance = self.scale[one, one] + self.scale[other, other] - 2 * self.scale[one, other]
        return float(self.mean[one] - self.mean[other]), float(np.sqrt(variance))


def posterior(trials: Sequence[Trial], settings: CurriculumSettings, advantage: float = 0.0) -> Posterior:
    """What is believed of the arms' gains, at the mean age of the trials that count.

    Without ``advantage`` the arms are held to be alike before any trial; with it the favoured one is held to be better
    by so many spreads of one trial.
    """
    arms = settings.arms
    known = [trial for trial in trials if trial.arm in arms]
    y, age = np.array([trial.points for trial in known]), np.array([float(trial.age) for trial in known])
    w = _weights(known, settings.half_life)
    x = np.zeros((len(known), len(arms) + 1))
    for row, trial in enumerate(known):
        x[row, arms.index(trial.arm)] = 1.0
    if known:
        x[:, -1] = (age - np.average(age, weights=w)) / settings.half_life
    centre, spread = _scale(known, y, w)
    favour = np.array([advantage * spread * (name == settings.favoured) for name in arms])
    prior_mean = np.append(centre + favour, 0.0)
    prior_precision = np.diag([settings.prior_trials] * len(arms) + [_TREND_PRECISION])
    precision = prior_precision + x.T @ (w[:, None] * x)
    covariance = np.linalg.inv(precision)
    mean = covariance @ (prior_precision @ prior_mean + x.T @ (w * y))
    shape = _SPREAD_PRIOR + w.sum() / 2
    misfit = w @ y**2 + prior_mean @ prior_precision @ prior_mean - mean @ precision @ mean
    rate = _SPREAD_PRIOR * spread**2 + max(float(misfit), 0.0) / 2
    n = len(arms)
    return Posterior(arms, mean[:n], rate / shape * covariance[:n, :n], 2 * shape, w @ x[:, :n])


def conclude(
    trials: Sequence[Trial], settings: CurriculumSettings, *, has_mastered: bool, was_finished: bool = False
) -> Experiment:
    """Where the experiment stands, and the share of the next batches that each arm gets.

    Before anything is mastered (``waiting``) the favoured arm has all. The experiment ends when the leader is better
    than (``decided``), or no different from (``even``), every other arm with ``certainty``, on ``trials_each`` trials
    of each; the leader has all then. Once finished it stays so until half of that is left: what is forgotten opens it
    again.

    What is reported rests on the trials alone; the favour for one arm only bends the shares.
    """
    belief = posterior(trials, settings)
    best = belief.probability_best()
    hoped = posterior(trials, settings, settings.advantage).probability_best()
    tried = {trial.arm for trial in trials}
    leader = int(np.argmax(belief.mean))
    others = [place for place in range(len(belief.arms)) if place != leader]
    comparisons = tuple(_compared(belief, leader, other, settings.even_points) for other in others)
    state = _state(belief, comparisons, settings, has_mastered, was_finished)
    return Experiment(
        state=state,
        leader=belief.arms[leader],
        arms=_results(belief, best, _shares(state, hoped, leader, settings), trials),
        comparisons=comparisons,
        report=tuple(_sentence(c, settings) for c in comparisons if {c.arm, c.other} <= tried),
    )


def _weights(trials: Sequence[Trial], half_life: float) -> Floats:
    """By age, and by the square of the tokens up to the usual number: the variance of a gain for a token."""
    if not trials:
        return np.zeros(0)
    usual = median(trial.tokens for trial in trials)
    return np.array([0.5 ** (t.age / half_life) * min(1.0, t.tokens / usual) ** 2 for t in trials])


def _scale(trials: Sequence[Trial], y: Floats, w: Floats) -> tuple[float, float]:
    """Where outcomes lie, and how far those of one arm spread: never less than their flips explain."""
    if not trials:
        return 0.0, 1.0
    arms = np.array([trial.arm for trial in trials])
    means = {arm: float(np.average(y[arms == arm], weights=w[arms == arm])) for arm in set(arms)}
    within = y - np.array([means[arm] for arm in arms])
    error = float(np.average([trial.error for trial in trials], weights=w))
    return float(np.average(y, weights=w)), max(float(np.sqrt(np.average(within**2, weights=w))), error)


def _compared(belief: Posterior, one: int, other: int, even_points: float) -> Comparison:
    points, scale = belief.difference(one, other)
    inside = [stdtr(belief.freedom, (bound - points) / scale) for bound in (-even_points, even_points)]
    return Comparison(
        arm=belief.arms[one],
        other=belief.arms[other],
        points=points,
        half_width=float(stdtrit(belief.freedom, (1 + CREDIBLE) / 2)) * scale,
        better=float(stdtr(belief.freedom, points / scale)),
        even=float(inside[1] - inside[0]),
    )


def _state(
    belief: Posterior,
    comparisons: Sequence[Comparison],
    settings: CurriculumSettings,
    has_mastered: bool,
    was_finished: bool,
) -> State:
    if len(belief.arms) == 1:
        return "off"
    if not has_mastered and not belief.weight.any():
        return "waiting"
    certainty = (settings.certainty + 0.5) / 2 if was_finished else settings.certainty
    wanted = settings.trials_each / 2 if was_finished else settings.trials_each
    settled = all(max(c.better, c.even) >= certainty for c in comparisons)
    if not settled or belief.weight.min() < wanted:
        return "open"
    return "decided" if all(c.better >= certainty for c in comparisons) else "even"


def _shares(state: State, best: Floats, leader: int, settings: CurriculumSettings) -> Floats:
    n = len(settings.arms)
    if state in FINISHED:
        return np.asarray(np.eye(n)[leader])
    if state in ("off", "waiting"):
        return np.asarray(np.eye(n)[settings.arms.index(settings.favoured)])
    return np.asarray((1 - settings.exploration) * best + settings.exploration / n)


def _results(belief: Posterior, best: Floats, shares: Floats, trials: Sequence[Trial]) -> tuple[ArmResult, ...]:
    half = float(stdtrit(belief.freedom, (1 + CREDIBLE) / 2)) * np.sqrt(np.diag(belief.scale))
    return tuple(
        ArmResult(
            name=name,
            share=float(shares[place]),
            trials=sum(trial.arm == name for trial in trials),
            weight=float(belief.weight[place]),
            points=float(belief.mean[place]),
            low=float(belief.mean[place] - half[place]),
            high=float(belief.mean[place] + half[place]),
            best=float(best[place]),
        )
        for place, name in enumerate(belief.arms)
    )


def _sentence(comparison: Comparison, settings: CurriculumSettings) -> str:
    if comparison.better >= settings.certainty:
        verb = "beats"
    elif comparison.even >= settings.certainty:
        verb = "is even with"
    else:
        verb = "is ahead, not surely, of"
    chance = f"P = {comparison.even if verb == 'is even with' else comparison.better:.2f}"
    by = f"by {comparison.points:.2f} ± {comparison.half_width:.2f} points per 100k tokens"
    return f"{comparison.arm} {verb} {comparison.other} {by}, {chance}"

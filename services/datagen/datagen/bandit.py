"""The curriculum experiment: which strategy improves the model most per token, and the share of batches of each.

A switchback experiment; its arms are the strategies. Batches are assigned to arms at random; a trial is the paired gain
on the probe suite from the checkpoint before to the one after, for each 100,000 tokens trained in between. Its outcome
is modelled as the arm's mean, plus a trend that all arms share (gains shrink as a model learns), plus noise:

    y = mu[arm] + trend * (age - mean age) + noise,   age in checkpoints

a linear regression with the conjugate normal-inverse-gamma prior (Gelman et al., Bayesian Data Analysis, 3rd ed.,
14.2), so that the means, and every difference of two, have Student distributions. A trial's weight halves with every
half-life of age (discounting as in Raj and Kalyani, Taming Non-stationary Bandits, 2017), and a short segment, whose
gain for a token is noisier, weighs less. Shares follow Thompson (1933): the probability that the arm is the best, with
an even part for exploration. Trials come as values: it does not know the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from random import Random
from statistics import median
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from ratchet.settings.data import CurriculumSettings

PER_TOKENS = 100_000

State = Literal["off", "waiting", "open", "decided", "even"]
FINISHED = ("decided", "even")


@dataclass(frozen=True)
class Rules:
    """How the experiment is evaluated and ended. The defaults are what runs; tests vary them."""

    advantage: float = 2.0
    """Assumed advantage of the favoured arm before any trial, in spreads of one trial."""
    prior_trials: float = 2.0
    """Trials that the prior of each mean counts for."""
    half_life: float = 30.0
    """Checkpoints after which a trial counts half, since a model that has changed learns from other data."""
    certainty: float = 0.95
    """Probability at which the experiment is decided."""
    trials_each: float = 2.0
    """Discounted trials of each arm that are needed to end the experiment."""
    even_points: float = 0.5
    """Arms that differ by less are even: points of the probe suite per 100,000 tokens."""


RULES = Rules()


class Trial(BaseModel):
    """A stretch of training by one arm: of ``items`` probe items ``gains`` were won in it and ``losses`` lost.

    ``age`` counts the checkpoints since. Only stretches whose arm was drawn at random are trials.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arm: str
    checkpoint_id: str
    before_id: str
    tokens: int
    items: int
    gains: int
    losses: int
    age: int

    @property
    def points(self) -> float:
        """Percentage points of the probe suite, for each 100,000 tokens."""
        return 100 * (self.gains - self.losses) / self.items * PER_TOKENS / self.tokens

    @property
    def error(self) -> float:
        """Standard error of ``points`` from the discordant items alone."""
        return 100 * sqrt(self.gains + self.losses + 1) / self.items * PER_TOKENS / self.tokens


class ArmResult(BaseModel):
    """One arm: ``points`` is its mean gain, between ``low`` and ``high`` with 95 %; ``best`` is the
    probability that no arm is better; ``weight`` the sum of its trials' discounted weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    share: float
    trials: int
    weight: float
    points: float
    low: float
    high: float
    best: float


class Comparison(BaseModel):
    """By how many points for 100,000 tokens ``arm`` is ahead of ``other``, with its 95 % half-width."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arm: str
    other: str
    points: float
    half_width: float
    better: float
    even: float
    """Probability that they differ by less than ``even_points``."""


class Experiment(BaseModel):
    """State and result. ``leader`` has the highest mean; comparisons are of the leader with the others, and ``report``
    puts those in words whose two arms have both been tried."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: State
    leader: str
    arms: tuple[ArmResult, ...]
    comparisons: tuple[Comparison, ...] = ()
    report: tuple[str, ...] = ()

    def shares(self) -> dict[str, float]:
        return {arm.name: arm.share for arm in self.arms}


def beginning(settings: CurriculumSettings) -> Experiment:
    """The state before any evaluation: the favoured arm gets all batches."""
    unknown = {"trials": 0, "weight": 0.0, "points": 0.0, "low": 0.0, "high": 0.0, "best": 1 / len(settings.strategies)}
    arms = tuple(
        ArmResult(name=name, share=float(name == settings.favoured), **unknown) for name in settings.strategies
    )
    return Experiment(state="off" if len(arms) == 1 else "waiting", leader=settings.favoured, arms=arms)


def assign(shares: dict[str, float], seed: int) -> str:
    """The arm of a batch. Equal shares and seeds give the same arm."""
    return Random(f"{seed} arm").choices(list(shares), list(shares.values()))[0]


Floats = NDArray[np.float64]

CREDIBLE = 0.95
DRAWS = 20_000
_TREND_PRECISION = 0.005
"""Precision of the prior of the trend over one half-life, centred on none and wide."""
_SPREAD_PRIOR = 1.0
"""Shape of the prior: its estimate of the noise counts as two trials."""


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


def posterior(
    trials: Sequence[Trial], settings: CurriculumSettings, advantage: float = 0.0, rules: Rules = RULES
) -> Posterior:
    """Posterior of the arms' gains, at the mean age of the trials that count.

    Without ``advantage`` all arms have the same prior; with it the favoured one's prior is better by this number of
    spreads of one trial.
    """
    arms = settings.strategies
    known = [trial for trial in trials if trial.arm in arms]
    y, age = np.array([trial.points for trial in known]), np.array([float(trial.age) for trial in known])
    w = _weights(known, rules.half_life)
    x = np.zeros((len(known), len(arms) + 1))
    for row, trial in enumerate(known):
        x[row, arms.index(trial.arm)] = 1.0
    if known:
        x[:, -1] = (age - np.average(age, weights=w)) / rules.half_life
    centre, spread = _scale(known, y, w)
    favour = np.array([advantage * spread * (name == settings.favoured) for name in arms])
    prior_mean = np.append(centre + favour, 0.0)
    prior_precision = np.diag([rules.prior_trials] * len(arms) + [_TREND_PRECISION])
    precision = prior_precision + x.T @ (w[:, None] * x)
    covariance = np.linalg.inv(precision)
    mean = covariance @ (prior_precision @ prior_mean + x.T @ (w * y))
    shape = _SPREAD_PRIOR + w.sum() / 2
    misfit = w @ y**2 + prior_mean @ prior_precision @ prior_mean - mean @ precision @ mean
    rate = _SPREAD_PRIOR * spread**2 + max(float(misfit), 0.0) / 2
    n = len(arms)
    return Posterior(arms, mean[:n], rate / shape * covariance[:n, :n], 2 * shape, w @ x[:, :n])


def conclude(
    trials: Sequence[Trial],
    settings: CurriculumSettings,
    *,
    has_mastered: bool,
    was_finished: bool = False,
    rules: Rules = RULES,
) -> Experiment:
    """The state of the experiment, and the share of the next batches that each arm gets.

    Before anything is mastered (``waiting``) the favoured arm gets all batches. The experiment ends when the leader is
    better than (``decided``), or no different from (``even``), every other arm with ``certainty``, on ``trials_each``
    trials of each; the leader then gets all batches. It reopens when the discounted trials have fallen to half of that.

    The report rests on the trials alone; the prior advantage only affects the shares.
    """
    belief = posterior(trials, settings, rules=rules)
    best = belief.probability_best()
    hoped = posterior(trials, settings, rules.advantage, rules).probability_best()
    tried = {trial.arm for trial in trials}
    leader = int(np.argmax(belief.mean))
    others = [place for place in range(len(belief.arms)) if place != leader]
    comparisons = tuple(_compared(belief, leader, other, rules.even_points) for other in others)
    state = _state(belief, comparisons, rules, has_mastered, was_finished)
    return Experiment(
        state=state,
        leader=belief.arms[leader],
        arms=_results(belief, best, _shares(state, hoped, leader, settings), trials),
        comparisons=comparisons,
        report=tuple(_sentence(c, rules) for c in comparisons if {c.arm, c.other} <= tried),
    )


def _weights(trials: Sequence[Trial], half_life: float) -> Floats:
    """By age, and by the square of the tokens up to the usual number: the variance of a gain for a token."""
    if not trials:
        return np.zeros(0)
    usual = median(trial.tokens for trial in trials)
    return np.array([0.5 ** (t.age / half_life) * min(1.0, t.tokens / usual) ** 2 for t in trials])


def _scale(trials: Sequence[Trial], y: Floats, w: Floats) -> tuple[float, float]:
    """Where outcomes lie, and how far those of one arm spread: never less than their discordant items explain."""
    if not trials:
        return 0.0, 1.0
    arms = np.array([trial.arm for trial in trials])
    means = {arm: float(np.average(y[arms == arm], weights=w[arms == arm])) for arm in set(arms)}
    within = y - np.array([means[arm] for arm in arms])
    error = float(np.average([trial.error for trial in trials], weights=w))
    return float(np.average(y, weights=w)), max(float(np.sqrt(np.average(within**2, weights=w))), error)


def _compared(belief: Posterior, one: int, other: int, even_points: float) -> Comparison:
    points, scale = belief.difference(one, other)
    inside = [scipy.special.stdtr(belief.freedom, (bound - points) / scale) for bound in (-even_points, even_points)]
    return Comparison(
        arm=belief.arms[one],
        other=belief.arms[other],
        points=points,
        half_width=float(scipy.special.stdtrit(belief.freedom, (1 + CREDIBLE) / 2)) * scale,
        better=float(scipy.special.stdtr(belief.freedom, points / scale)),
        even=float(inside[1] - inside[0]),
    )


def _state(
    belief: Posterior,
    comparisons: Sequence[Comparison],
    rules: Rules,
    has_mastered: bool,
    was_finished: bool,
) -> State:
    if len(belief.arms) == 1:
        return "off"
    if not has_mastered and not belief.weight.any():
        return "waiting"
    certainty = (rules.certainty + 0.5) / 2 if was_finished else rules.certainty
    wanted = rules.trials_each / 2 if was_finished else rules.trials_each
    settled = all(max(c.better, c.even) >= certainty for c in comparisons)
    if not settled or belief.weight.min() < wanted:
        return "open"
    return "decided" if all(c.better >= certainty for c in comparisons) else "even"


def _shares(state: State, best: Floats, leader: int, settings: CurriculumSettings) -> Floats:
    n = len(settings.strategies)
    if state in FINISHED:
        return np.asarray(np.eye(n)[leader])
    if state in ("off", "waiting"):
        return np.asarray(np.eye(n)[settings.strategies.index(settings.favoured)])
    return np.asarray((1 - settings.exploration) * best + settings.exploration / n)


def _results(belief: Posterior, best: Floats, shares: Floats, trials: Sequence[Trial]) -> tuple[ArmResult, ...]:
    half = float(scipy.special.stdtrit(belief.freedom, (1 + CREDIBLE) / 2)) * np.sqrt(np.diag(belief.scale))
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


def _sentence(comparison: Comparison, rules: Rules) -> str:
    if comparison.better >= rules.certainty:
        verb = "beats"
    elif comparison.even >= rules.certainty:
        verb = "is even with"
    else:
        verb = "is ahead, not surely, of"
    chance = f"P = {comparison.even if verb == 'is even with' else comparison.better:.2f}"
    by = f"by {comparison.points:.2f} ± {comparison.half_width:.2f} points per 100k tokens"
    return f"{comparison.arm} {verb} {comparison.other} {by}, {chance}"

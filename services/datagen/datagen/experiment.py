"""The curriculum experiment as values: what a trial is, what is believed of the arms, and how a batch gets its arm."""

from __future__ import annotations

from math import sqrt
from random import Random
from typing import Literal

from pydantic import BaseModel, ConfigDict
from ratchet.settings.curriculum import CurriculumSettings

PER_TOKENS = 100_000

State = Literal["off", "waiting", "open", "decided", "even"]
FINISHED = ("decided", "even")


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
        """Standard error of ``points`` from the flips alone."""
        return 100 * sqrt(self.gains + self.losses + 1) / self.items * PER_TOKENS / self.tokens


class ArmResult(BaseModel):
    """An arm as it stands: ``points`` is its mean gain, between ``low`` and ``high`` with 95 %; ``best`` is the
    probability that no arm is better; ``weight`` what its trials count for, being forgotten."""

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
    """Where the experiment stands. ``leader`` has the highest mean; comparisons are of the leader with the others, and
    ``report`` says in words how those stand of which both have been tried."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: State
    leader: str
    arms: tuple[ArmResult, ...]
    comparisons: tuple[Comparison, ...] = ()
    report: tuple[str, ...] = ()

    def shares(self) -> dict[str, float]:
        return {arm.name: arm.share for arm in self.arms}


def beginning(settings: CurriculumSettings) -> Experiment:
    """Before any checkpoint was judged: the favoured arm has all, and nothing is believed of any."""
    unknown = {"trials": 0, "weight": 0.0, "points": 0.0, "low": 0.0, "high": 0.0, "best": 1 / len(settings.arms)}
    arms = tuple(ArmResult(name=name, share=float(name == settings.favoured), **unknown) for name in settings.arms)
    return Experiment(state="off" if len(arms) == 1 else "waiting", leader=settings.favoured, arms=arms)


def assign(shares: dict[str, float], seed: int) -> str:
    """The arm of a batch, drawn by the seed: the same for the same shares and seed."""
    return Random(f"{seed} arm").choices(list(shares), list(shares.values()))[0]

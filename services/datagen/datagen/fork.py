"""A fork as values: which two arms it sets against each other, and what the test of their checkpoints says."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict
from ratchet.evaluation.flips import Count
from ratchet.stats.difference import difference_interval
from ratchet.stats.mcnemar import mcnemar_better

from datagen.experiment import PER_TOKENS, assign
from datagen.mix import normalised

BEST, CHALLENGER = 0, 1
"""Places of the two branches."""


def contestants(shares: Mapping[str, float], seed: int) -> dict[str, float]:
    """The arm with the largest share, and one of the others drawn by theirs, each with its probability."""
    best = max(shares, key=lambda arm: shares[arm])
    others = normalised({arm: share for arm, share in shares.items() if arm != best})
    challenger = assign(others, seed)
    return {best: 1.0, challenger: others[challenger]}


class ForkResult(BaseModel):
    """The challenger's checkpoint beside that of the best arm: of ``items`` probe items it won ``gains`` and lost
    ``losses``.

    ``p`` is McNemar's exact two-sided test, ``low`` and ``high`` bound the difference of the rates (Tango's score
    interval at ``certainty``). ``tokens`` are those of each branch, in their order; ``points`` the difference of their
    gains, in percentage points for each 100,000 tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arms: tuple[str, str]
    tokens: tuple[int, int]
    items: int
    gains: int
    losses: int
    p: float
    certainty: float
    low: float
    high: float
    points: float
    winner: int

    @property
    def is_tie(self) -> bool:
        """Whether the test does not tell the two apart; then the best arm has it."""
        return self.p > 1 - self.certainty

    @property
    def sentence(self) -> str:
        """The decision and its numbers in words."""
        best, challenger = self.arms
        verb = "is even with" if self.is_tie else "beats" if self.winner == CHALLENGER else "loses to"
        return (
            f"{challenger} {verb} {best}: {self.gains} won and {self.losses} lost of {self.items} items "
            f"({100 * (self.gains - self.losses) / self.items:+.1f} points, {100 * self.low:+.1f} to "
            f"{100 * self.high:+.1f}; p = {self.p:.3f}); training goes on from {self.arms[self.winner]}"
        )


def judge(arms: tuple[str, str], flips: Count, tokens: tuple[int, int], certainty: float) -> ForkResult:
    """Who wins. ``flips`` go from the best arm's checkpoint to the challenger's.

    The challenger wins only where the test tells the two apart at 1 − ``certainty``, in its favour.
    """
    tails = mcnemar_better([flips.gains, flips.losses], [flips.losses, flips.gains])
    p = min(1.0, 2 * float(tails.min()))
    bounds = difference_interval(flips.gains, flips.losses, flips.n, certainty)
    is_better = flips.gains > flips.losses and p <= 1 - certainty
    return ForkResult(
        arms=arms,
        tokens=tokens,
        items=flips.n,
        gains=flips.gains,
        losses=flips.losses,
        p=p,
        certainty=certainty,
        low=bounds.low,
        high=bounds.high,
        points=100 * flips.effect * PER_TOKENS / (sum(tokens) / 2),
        winner=CHALLENGER if is_better else BEST,
    )

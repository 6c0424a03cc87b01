"""Has the loss of the right answers risen? It moves before answers flip, and says so on fewer items.

Only levels that the baseline had learnt count: while others are learnt, the loss of those that are not goes up and down
and means no harm. They are picked by the selection split, the loss is compared on the test split. No single item
decides, since differences are held within one nat a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from ratchet.evaluation.record import Evaluation, ItemRecord, in_selection_split, in_test_split, level_rates, paired
from ratchet.settings.regression import RegressionSettings
from ratchet.stats.proportions import Interval
from scipy.stats import t

FEWEST = 20
"""Items from which on a mean of differences is near enough to normal."""

LARGEST = 1.0
CONFIDENCE = 0.95

Floats = NDArray[np.float64]


class LossPairs(BaseModel):
    """Losses of the right answers before and after, item by item, in nats a token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    before: tuple[float, ...]
    after: tuple[float, ...]

    def rises(self) -> Floats:
        """After minus before, each held within one nat, shape (items,)."""
        return np.asarray(np.clip(np.array(self.after) - np.array(self.before), -LARGEST, LARGEST), np.float64)


class LossRise(BaseModel):
    """``rise`` is the mean over the items, after minus before, with its interval; ``p`` of "at most the margin"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    baseline: str
    n: int
    before: float
    after: float
    rise: float
    interval: Interval
    p: float
    p_holm: float = 1.0
    is_proved: bool = False


def loss_pairs(baseline: Evaluation, candidate: Evaluation, settings: RegressionSettings) -> LossPairs:
    """The test split's items of the levels that the baseline had learnt, where both records have the loss."""
    learnt = _learnt(baseline.items, settings.loss_mastery)
    pairs = [
        (one.gold_nll, two.gold_nll)
        for one, two in paired(baseline, candidate)
        if in_test_split(one.item_id) and (one.family, one.level) in learnt
    ]
    known = [(before, after) for before, after in pairs if before is not None and after is not None]
    return LossPairs(before=tuple(before for before, _ in known), after=tuple(after for _, after in known))


def _learnt(items: Sequence[ItemRecord], mastery: float) -> set[tuple[str, int]]:
    rates = level_rates(item for item in items if in_selection_split(item.item_id))
    return {cell for cell, rate in rates.items() if rate.value >= mastery}


def loss_rises(pairs: Mapping[str, LossPairs], margin: float) -> list[LossRise]:
    """A paired, one-sided t-test against each baseline of "the loss has risen by the margin at most"."""
    return [_rise(name, these, margin) for name, these in pairs.items() if len(these.before) >= FEWEST]


def _rise(baseline: str, pairs: LossPairs, margin: float) -> LossRise:
    rises = pairs.rises()
    n, mean = len(rises), float(rises.mean())
    error = float(rises.std(ddof=1)) / np.sqrt(n)
    half = float(t.isf((1 - CONFIDENCE) / 2, n - 1)) * error
    p = float(t.sf((mean - margin) / error, n - 1)) if error > 0 else float(mean <= margin)
    return LossRise(
        baseline=baseline,
        n=n,
        before=float(np.mean(pairs.before)),
        after=float(np.mean(pairs.after)),
        rise=mean,
        interval=Interval(low=mean - half, high=mean + half, confidence=CONFIDENCE),
        p=p,
    )

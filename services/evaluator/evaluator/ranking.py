"""Ranking of evaluated checkpoints, with uncertainty.

All checkpoints answered the same items, so the items are resampled, with the same resamples for all (a paired
bootstrap, which keeps how alike two checkpoints are). Then, after Hsu's multiple comparisons with the best (Annals of
Statistics 9:1026-1034, 1981): in each resample b let e_i(b) be how far checkpoint i's score lies from its score on all
items, and M(b) the largest of them. Checkpoint i may be the best unless the leader is ahead of it by more than the
95 % quantile of M(b) - e_i(b). With 95 % confidence the truly best checkpoint is among those left, which are called
tied. The same is repeated on the rest, which gives the groups of ties.

The weights are exponential, normalised (Bayesian bootstrap: Rubin 1981), drawn from a fixed seed, so that the same
tallies always give the same ranking. A checkpoint's e_i depends on its own scores alone: it is computed once, when
the checkpoint joins the board. Each family is ranked in the same way on its own items.

An item's score is from 0 to 1 (``ItemRecord.bounded_score``): right or wrong; exp(-loss), the geometric mean of the
probabilities of the reference answer's tokens; or a judge's preference. A checkpoint's score is the mean over all
measured items but those of the general task, which the gate bounds; with graded items alone it is their success rate.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from ratchet.errors import EmptyEvaluation, NotComparable
from ratchet.evaluation.record import GENERAL, Evaluation, ItemRecord, Metric, selection_score
from ratchet.settings.judging import ComparisonSettings
from ratchet.stats.proportions import Interval, wilson

RESAMPLES = 400
SEED = 6_174
CONFIDENCE = 0.95

STEPS = 65_534
"""Scores are stored as whole numbers from 0 to this; the next one stands for an item that was not measured."""

Matrix = NDArray[np.float32]
Scores = NDArray[np.float64]


class FamilyTally(BaseModel):
    """One family of a tally: ``measured`` of its ``n`` items have a score, ``correct`` of graded ones are right.

    ``mean`` is as measured: a success rate, a loss in nats per token, or a share of preferences; ``interval`` is its
    95 % interval, Wilson's for a rate and a normal one else. ``score`` is the mean of the scores from 0 to 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: Metric
    n: int
    measured: int
    correct: int | None
    mean: float
    interval: Interval | None
    score: float


class Tally(BaseModel):
    """Scores of one checkpoint by family and item id (see ``packed``); ``by_family`` is in that order.

    ``conditions`` names suite, grader, decoding, dtype, engine and GPU class; ``items`` is a hash of the item ids.
    Tallies are ranked together only where both are equal. ``score`` is the mean over the measured items.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint_id: str
    conditions: dict[str, str]
    items: str
    n: int
    scores: str
    by_family: dict[str, FamilyTally]
    score: float
    selection_score: float

    @property
    def conditions_key(self) -> tuple[str, ...]:
        """What two tallies must share to be ranked together, as a key."""
        return (self.items, *(f"{name}={value}" for name, value in sorted(self.conditions.items())))

    @property
    def is_graded(self) -> bool:
        """Whether every item is right or wrong."""
        return all(family.metric == "accuracy" for family in self.by_family.values())

    def unpacked(self) -> Scores:
        """Scores from 0 to 1, shape (n,); NaN where an item was not measured."""
        stored = np.frombuffer(zlib.decompress(base64.b64decode(self.scores)), np.uint16)
        return np.where(stored > STEPS, np.nan, stored / STEPS)


def packed(scores: Sequence[float | None]) -> str:
    """Scores from 0 to 1 as text: 16 bits an item, compressed, which of right and wrong leaves about a bit an item."""
    stored = np.array([STEPS + 1 if score is None else round(score * STEPS) for score in scores], np.uint16)
    return base64.b64encode(zlib.compress(stored.tobytes(), 9)).decode()


def tally(evaluation: Evaluation) -> Tally:
    """One pass over the items. Raises EmptyEvaluation where there are none."""
    chosen = [item for item in evaluation.items if item.family != GENERAL] or evaluation.items
    if not chosen:
        raise EmptyEvaluation(f"{evaluation.checkpoint_id} has no graded item, so it cannot be ranked.")
    items = sorted(chosen, key=lambda item: (item.family, item.item_id))
    families: dict[str, list[ItemRecord]] = {}
    for item in items:
        families.setdefault(item.family, []).append(item)
    return Tally(
        checkpoint_id=evaluation.checkpoint_id,
        conditions=evaluation.key.conditions(),
        items=hashlib.sha256("\n".join(item.item_id for item in items).encode()).hexdigest()[:16],
        n=len(items),
        scores=packed([item.bounded_score for item in items]),
        by_family={name: family_tally(of_family) for name, of_family in families.items()},
        score=_mean([item.bounded_score for item in items]),
        selection_score=selection_score(evaluation),
    )


def _mean(scores: Sequence[float | None]) -> float:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else 0.0


def family_tally(items: Sequence[ItemRecord]) -> FamilyTally:
    """The numbers of one family's items, which share a metric."""
    metric = items[0].metric
    scores = np.array([item.score for item in items if item.score is not None], np.float64)
    n = len(scores)
    mean = float(scores.mean()) * (-1 if metric == "loss" else 1) if n else 0.0
    return FamilyTally(
        metric=metric,
        n=len(items),
        measured=n,
        correct=int(scores.sum()) if metric == "accuracy" else None,
        mean=mean,
        interval=_interval(metric, mean, float(scores.std()), n) if n else None,
        score=_mean([item.bounded_score for item in items]),
    )


def _interval(metric: Metric, mean: float, spread: float, n: int) -> Interval:
    if metric == "accuracy":
        return wilson(round(mean * n), n, CONFIDENCE)
    half = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2) * spread / np.sqrt(n)
    return Interval(low=mean - half, high=mean + half, confidence=CONFIDENCE)


class Cost(BaseModel):
    """What a checkpoint costs to run: compared with budgets, and no part of any score. ``is_kept``: not deleted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens_per_s: float
    size_bytes: int
    is_kept: bool = True

    def over_budget(self, budget: ComparisonSettings) -> str | None:
        """The exceeded budget in words, or None."""
        if budget.max_size_bytes is not None and self.size_bytes > budget.max_size_bytes:
            return f"{self.size_bytes:,} bytes are more than the {budget.max_size_bytes:,} allowed"
        if budget.min_tokens_per_s is not None and self.tokens_per_s < budget.min_tokens_per_s:
            return f"{self.tokens_per_s:,.0f} tokens/s are fewer than the {budget.min_tokens_per_s:,.0f} asked for"
        return None


class FamilyRank(FamilyTally):
    """A checkpoint on one family's items."""

    rank: int
    is_tied_with_best: bool


class Entry(BaseModel):
    """One checkpoint. ``rank`` counts those with a higher score, plus one; ``interval`` is Wilson's where all items are
    graded, else a normal one.

    ``group`` 1 is tied with the best; ``behind_at_most`` bounds how far it may lie behind the leader of its group.
    ``selection_score`` is its score on the selection split of the items. ``over_budget`` says which budget it exceeds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint_id: str
    rank: int
    group: int
    is_tied_with_best: bool
    score: float
    interval: Interval
    behind_at_most: float
    selection_score: float
    n: int
    by_family: dict[str, FamilyRank]
    cost: Cost | None = None
    over_budget: str | None = None


class Ranking(BaseModel):
    """Entries from the highest score down; equal scores in the order of their ids."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entries: tuple[Entry, ...]

    @property
    def best(self) -> Entry:
        """The highest entry within its budgets whose files are kept; if there is none, the highest of all."""
        usable = (e for e in self.entries if e.over_budget is None and (e.cost is None or e.cost.is_kept))
        return next(usable, self.entries[0])


@dataclass(frozen=True)
class _Row:
    """``deviations``: of the score in each resample from the score, a row for all items and one for each family."""

    tally: Tally
    score: float
    interval: Interval
    deviations: Matrix

    @classmethod
    def of(cls, tally: Tally) -> _Row:
        scores = tally.unpacked()
        known = scores[~np.isnan(scores)]
        mean, n = (float(known.mean()), len(known)) if len(known) else (0.0, 0)
        metric: Metric = "accuracy" if tally.is_graded else "judge"
        interval = (
            _interval(metric, mean, float(known.std()), n) if n else Interval(low=0, high=1, confidence=CONFIDENCE)
        )
        return cls(tally, mean, interval, _deviations(tally, scores))


class Board:
    """Checkpoints that were evaluated under the same conditions. Raises NotComparable for others."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, tally: Tally) -> None:
        """Enter a checkpoint, or replace its tally. Takes time in proportion to its items × RESAMPLES."""
        known = self._rows.get(tally.checkpoint_id)
        if known is not None and known.tally == tally:
            return
        other = next(iter(self._rows.values()), None)
        if other is not None and other.tally.conditions_key != tally.conditions_key:
            raise NotComparable(
                f"{tally.checkpoint_id} and {other.tally.checkpoint_id} were not evaluated under the same conditions; "
                "evaluate both again."
            )
        self._rows[tally.checkpoint_id] = _Row.of(tally)

    def keep(self, checkpoint_ids: Collection[str]) -> None:
        """Remove all others."""
        self._rows = {name: row for name, row in self._rows.items() if name in checkpoint_ids}

    def rank(
        self,
        checkpoint_ids: Collection[str] | None = None,
        costs: Mapping[str, Cost] | None = None,
        budget: ComparisonSettings | None = None,
    ) -> Ranking:
        """Rank all entered checkpoints, or those of these ids. Raises EmptyEvaluation if there is none."""
        names = sorted(self._rows if checkpoint_ids is None else self._rows.keys() & set(checkpoint_ids))
        if not names:
            raise EmptyEvaluation("there is no evaluation to rank.")
        rows = [self._rows[name] for name in names]
        tallies, deviations = [row.tally for row in rows], np.stack([row.deviations for row in rows], axis=1)
        scores = np.array([row.score for row in rows])
        groups, behind = _groups(scores, deviations[0])
        families, ranks = _families(tallies, deviations[1:]), _ranks(scores)
        limits = budget or ComparisonSettings()
        return Ranking(
            entries=tuple(
                Entry(
                    checkpoint_id=names[i],
                    rank=int(ranks[i]),
                    group=int(groups[i]),
                    is_tied_with_best=bool(groups[i] == 1),
                    score=float(scores[i]),
                    interval=rows[i].interval,
                    behind_at_most=float(behind[i]),
                    selection_score=tallies[i].selection_score,
                    n=tallies[i].n,
                    by_family={family: ranks_by_family[i] for family, ranks_by_family in families.items()},
                    cost=cost,
                    over_budget=cost.over_budget(limits) if cost else None,
                )
                for i in np.argsort(-scores, kind="stable")
                for cost in [(costs or {}).get(names[i])]
            )
        )


def _deviations(tally: Tally, scores: Scores) -> Matrix:
    """How far the scores on all items, and on those of each family, lie from themselves in each resample.

    Items that were not measured have no weight.
    """
    measured = ~np.isnan(scores)
    values = np.where(measured, scores, 0.0).astype(np.float32)
    weights = _weights(tally.n) if measured.all() else _weights(tally.n) * measured[:, None].astype(np.float32)
    blocks = [slice(a, b) for a, b in pairwise(np.cumsum([0, *(family.n for family in tally.by_family.values())]))]
    sums = np.stack([values[block] @ weights[block] for block in blocks])
    totals = np.stack([weights[block].sum(axis=0) for block in blocks])
    sums, totals = np.vstack([sums.sum(axis=0), sums]), np.vstack([totals.sum(axis=0), totals])
    counts = np.array([measured.sum(), *(measured[block].sum() for block in blocks)])
    means = np.array([values.sum(), *(values[block].sum() for block in blocks)]) / np.maximum(counts, 1)
    resampled = np.divide(sums, totals, out=np.zeros_like(sums), where=totals > 0)
    deviations: Matrix = (resampled - means[:, None]).astype(np.float32)
    return deviations


@lru_cache(maxsize=4)
def _weights(items: int) -> Matrix:
    """The resampling weights of a suite with this number of items, always the same."""
    return np.random.default_rng(SEED).standard_exponential((items, RESAMPLES), dtype=np.float32)


def rank(tallies: Sequence[Tally]) -> Ranking:
    """Rank tallies of one suite. Raises NotComparable where they differ in conditions or items."""
    board = Board()
    for tally in tallies:
        board.add(tally)
    return board.rank()


def _ranks(scores: Scores) -> NDArray[np.int64]:
    return np.searchsorted(np.sort(-scores), -scores, side="left") + 1


def _tied(scores: Scores, deviations: Matrix) -> tuple[NDArray[np.bool_], Scores]:
    """Which tallies may be the best, and the bound on the distance of each to the leader."""
    reach = np.quantile(deviations.max(axis=0) - deviations, CONFIDENCE, axis=1)
    distance = scores.max() - scores
    return distance <= reach, distance + reach


def _groups(scores: Scores, deviations: Matrix) -> tuple[NDArray[np.int64], Scores]:
    """Group number and bound on the distance to the group's leader, for each checkpoint."""
    groups = np.zeros(len(scores), np.int64)
    behind = np.zeros(len(scores))
    left = np.argsort(-scores, kind="stable")
    number = 0
    while len(left):
        number += 1
        tied, bound = _tied(scores[left], deviations[left])
        groups[left[tied]] = number
        behind[left[tied]] = bound[tied]
        left = left[~tied]
    return groups, behind


def _families(tallies: Sequence[Tally], deviations: Matrix) -> dict[str, list[FamilyRank]]:
    """The ranks by family, in the order of the tallies. ``deviations`` has shape (families, tallies, RESAMPLES)."""
    found = {}
    for family, own in zip(tallies[0].by_family, deviations, strict=True):
        of_family = [tally.by_family[family] for tally in tallies]
        scores = np.array([each.score for each in of_family])
        ranks, (tied, _) = _ranks(scores), _tied(scores, own)
        found[family] = [
            FamilyRank(**each.model_dump(), rank=int(ranks[i]), is_tied_with_best=bool(tied[i]))
            for i, each in enumerate(of_family)
        ]
    return found

"""Ranking of evaluated checkpoints, with uncertainty.

All checkpoints answered the same items, so the items are resampled, with the same resamples for all (a paired
bootstrap, which keeps how alike two checkpoints are). Then, after Hsu's multiple comparisons with the best (Annals of
Statistics 9:1026-1034, 1981): in each resample b let e_i(b) be how far checkpoint i's score lies from its score on all
items, and M(b) the largest of them. Checkpoint i may be the best unless the leader is ahead of it by more than the
95 % quantile of M(b) - e_i(b). With 95 % confidence the truly best checkpoint is among those left, which are called
tied. The same is repeated on the rest, which gives the groups of ties.

The weights are exponential, normalised (Bayesian bootstrap: Rubin 1981), drawn from a fixed seed, so that the same
tallies always give the same ranking. A checkpoint's e_i depends on its own grades alone: it is computed once, when
the checkpoint joins the board. Each family is ranked in the same way on its own items.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from ratchet.errors import EmptyEvaluation, NotComparable
from ratchet.evaluation.record import Evaluation, Rate, selection_score
from ratchet.settings.judging import ComparisonSettings
from ratchet.stats.proportions import Interval, wilson

RESAMPLES = 400
SEED = 6_174
CONFIDENCE = 0.95

Matrix = NDArray[np.float32]
Scores = NDArray[np.float64]


class Tally(BaseModel):
    """Grades of one checkpoint by family and item id, packed eight to a byte, as hex; ``by_family`` is in that order.

    ``conditions`` names suite, grader, decoding, dtype, engine and GPU class; ``items`` is a hash of the item ids.
    Tallies are ranked together only where both are equal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint_id: str
    conditions: dict[str, str]
    items: str
    n: int
    grades: str
    by_family: dict[str, Rate]
    selection_score: float

    @property
    def conditions_key(self) -> tuple[str, ...]:
        """What two tallies must share to be ranked together, as a key."""
        return (self.items, *(f"{name}={value}" for name, value in sorted(self.conditions.items())))

    def unpacked(self) -> NDArray[np.uint8]:
        """Grades as 0 and 1, shape (n,)."""
        return np.unpackbits(np.frombuffer(bytes.fromhex(self.grades), np.uint8), count=self.n)


def tally(evaluation: Evaluation) -> Tally:
    """One pass over the items. Raises EmptyEvaluation where there are none."""
    if not evaluation.items:
        raise EmptyEvaluation(f"{evaluation.checkpoint_id} has no graded item, so it cannot be ranked.")
    graded = [item for item in evaluation.items if item.correct is not None]
    items = sorted(graded, key=lambda item: (item.family, item.item_id))
    families: dict[str, list[bool]] = {}
    for item in items:
        families.setdefault(item.family, []).append(item.correct is True)
    return Tally(
        checkpoint_id=evaluation.checkpoint_id,
        conditions=evaluation.key.conditions(),
        items=hashlib.sha256("\n".join(item.item_id for item in items).encode()).hexdigest()[:16],
        n=len(items),
        grades=np.packbits([item.correct is True for item in items]).tobytes().hex(),
        by_family={name: Rate(correct=sum(g), n=len(g)) for name, g in families.items()},
        selection_score=selection_score(evaluation),
    )


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


class FamilyRank(BaseModel):
    """A checkpoint on one family's items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    correct: int
    n: int
    rank: int
    is_tied_with_best: bool
    interval: Interval


class Entry(BaseModel):
    """One checkpoint. ``rank`` counts those with a higher score, plus one; ``interval`` is Wilson's.

    ``group`` 1 is tied with the best; ``behind_at_most`` bounds how far it may lie behind the leader of its group.
    ``selection_score`` is its rate on the selection split of the items. ``over_budget`` says which budget it exceeds.
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
    deviations: Matrix


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
        self._rows[tally.checkpoint_id] = _Row(tally, _deviations(tally))

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
        scores = np.array([sum(rate.correct for rate in t.by_family.values()) / t.n for t in tallies])
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
                    interval=wilson(round(float(scores[i]) * tallies[i].n), tallies[i].n, CONFIDENCE),
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


def _deviations(tally: Tally) -> Matrix:
    """How far the scores on all items, and on those of each family, lie from themselves in each resample."""
    grades, weights = tally.unpacked().astype(np.float32), _weights(tally.n)
    blocks = [slice(a, b) for a, b in pairwise(np.cumsum([0, *(rate.n for rate in tally.by_family.values())]))]
    right = np.stack([grades[block] @ weights[block] for block in blocks])
    all_items = np.stack([weights[block].sum(axis=0) for block in blocks])
    scores = np.array([grades.mean(), *(grades[block].mean() for block in blocks)], np.float32)
    deviations: Matrix = np.vstack([right.sum(axis=0) / all_items.sum(axis=0), right / all_items]) - scores[:, None]
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
        rates = [tally.by_family[family] for tally in tallies]
        scores = np.array([rate.value for rate in rates])
        ranks, (tied, _) = _ranks(scores), _tied(scores, own)
        intervals = {rate.correct: wilson(rate.correct, rate.n, CONFIDENCE) for rate in rates}
        found[family] = [
            FamilyRank(
                correct=rate.correct,
                n=rate.n,
                rank=int(ranks[i]),
                is_tied_with_best=bool(tied[i]),
                interval=intervals[rate.correct],
            )
            for i, rate in enumerate(rates)
        ]
    return found

"""Paired outcomes: how many of the same items a later checkpoint answers right and an earlier one wrong, or vice versa.

They are counted by family and level, which is sufficient for the paired tests (ratchet.stats.paired_tests).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from pydantic import BaseModel, ConfigDict

from ratchet.errors import EmptyEvaluation
from ratchet.evaluation.record import Evaluation, paired


class CellOutcomes(BaseModel):
    """One family and level: of ``n`` items, ``gains`` are right only in the later record, ``losses`` only in the
    earlier one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    level: int
    n: int
    gains: int
    losses: int


class OutcomeCounts(BaseModel):
    """Paired outcomes added up over families and levels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    gains: int
    losses: int

    @property
    def effect(self) -> float:
        """Difference of the success rates; positive if the later checkpoint is better."""
        return (self.gains - self.losses) / self.n if self.n else 0.0

    @property
    def discordant_share(self) -> float:
        """Share of the items on which the two differ."""
        return (self.gains + self.losses) / self.n if self.n else 0.0


OutcomeTable = tuple[CellOutcomes, ...]


def outcome_table(earlier: Evaluation, later: Evaluation, only: Callable[[str], bool] | None = None) -> OutcomeTable:
    """Paired outcomes from ``earlier`` to ``later``, sorted by family and level, for items whose id passes ``only``.

    Raises NotComparable for records made under different conditions, EmptyEvaluation if no item is left.
    """
    cells: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0, 0])
    for before, after in paired(earlier, later):
        if before.correct is None or after.correct is None:
            continue
        if only is None or only(before.item_id):
            cell = cells[before.family, before.level]
            cell[0] += 1
            cell[1] += after.correct and not before.correct
            cell[2] += before.correct and not after.correct
    if not cells:
        raise EmptyEvaluation(
            f"{earlier.checkpoint_id} and {later.checkpoint_id} have no graded items in common to compare."
        )
    return tuple(
        CellOutcomes(family=family, level=level, n=n, gains=gains, losses=losses)
        for (family, level), (n, gains, losses) in sorted(cells.items())
    )


def total_of(cells: Iterable[CellOutcomes]) -> OutcomeCounts:
    """The sum over all cells."""
    table = tuple(cells)
    return OutcomeCounts(
        n=sum(c.n for c in table), gains=sum(c.gains for c in table), losses=sum(c.losses for c in table)
    )

"""What changed between two checkpoints on the same items, by family and level."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from pydantic import BaseModel, ConfigDict

from ratchet.errors import EmptyEvaluation
from ratchet.evaluation.record import Evaluation, paired


class Flips(BaseModel):
    """Counts of one cell: of ``n`` items the later checkpoint won ``gains`` and lost ``losses``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    level: int
    n: int
    gains: int
    losses: int


class Count(BaseModel):
    """Flips added up over cells."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    gains: int
    losses: int

    @property
    def effect(self) -> float:
        """Difference of the success rates; above 0 the later checkpoint is better."""
        return (self.gains - self.losses) / self.n if self.n else 0.0

    @property
    def flip_share(self) -> float:
        return (self.gains + self.losses) / self.n if self.n else 0.0


FlipTable = tuple[Flips, ...]


def flip_table(earlier: Evaluation, later: Evaluation, only: Callable[[str], bool] | None = None) -> FlipTable:
    """Flips from ``earlier`` to ``later`` on the items whose id passes ``only``, sorted by family and level.

    Raises NotComparable for records made under other conditions, EmptyEvaluation where no item is left.
    """
    cells: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0, 0])
    for before, after in paired(earlier, later):
        if only is None or only(before.item_id):
            cell = cells[before.family, before.level]
            cell[0] += 1
            cell[1] += after.correct and not before.correct
            cell[2] += before.correct and not after.correct
    if not cells:
        raise EmptyEvaluation(
            f"{earlier.checkpoint_id} and {later.checkpoint_id} share no graded item to be compared on."
        )
    return tuple(
        Flips(family=family, level=level, n=n, gains=gains, losses=losses)
        for (family, level), (n, gains, losses) in sorted(cells.items())
    )


def added(cells: Iterable[Flips]) -> Count:
    """All cells together."""
    table = tuple(cells)
    return Count(n=sum(c.n for c in table), gains=sum(c.gains for c in table), losses=sum(c.losses for c in table))

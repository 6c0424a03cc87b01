"""Generate a batch: a stream of examples from a mix of levels, reproducible by its seed, with nothing held out in it.

A finite level is drawn again and again until each of its items has been used as often as the epoch cap allows; then it
is exhausted, its weight goes to the others, and the report says so. A level without an end gives no item twice in
one batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from random import Random
from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from ratchet.data.example import Example
from ratchet.errors import DataError
from ratchet.tasks import registry
from ratchet.tasks.family import Problem, TaskFamily, to_example

Cell = tuple[str, int]
Share = tuple[str, int, float]
"""Family, level, weight."""

SOURCE: Final = "generation"

_PATIENCE = 300
"""Draws in a row without a usable item after which a level is exhausted: at one usable item in 50, once in 400."""


class GenerationReport(BaseModel):
    """What a batch came to. ``made`` counts examples under ``family/level``; ``exhausted`` lists levels so."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    wanted: int
    made: dict[str, int] = Field(default_factory=dict)
    exhausted: tuple[str, ...] = ()
    held_out_draws: int = 0
    repeated: int = 0
    """Examples whose item was used before, in this batch or an earlier one."""

    @property
    def examples(self) -> int:
        return sum(self.made.values())


class BatchGeneration:
    """One batch in the making: iterate once, then read ``report``.

    ``uses`` tells how often an item was trained on before. Raises DataError for a mix that gives nothing.
    """

    def __init__(
        self,
        mix: Sequence[Share],
        n: int,
        seed: int,
        held_out: Container[str],
        epoch_cap: int,
        uses: Callable[[str], int] = lambda _: 0,
    ):
        self._weights = {(family, level): weight for family, level, weight in mix if weight > 0}
        if not self._weights:
            raise DataError("the mix gives weight to no level.")
        self._families = {name: registry.get(name) for name, _ in self._weights}
        self._n = n
        self._random = Random(f"{seed} batch")
        self._held_out = held_out
        self._epoch_cap = epoch_cap
        self._uses = uses
        self._used: dict[Cell, Counter[str]] = {cell: Counter() for cell in self._weights}
        self._made: Counter[str] = Counter()
        self._exhausted: list[str] = []
        self._held_out_draws = 0
        self._repeated = 0

    @property
    def report(self) -> GenerationReport:
        """So far; final once the stream has ended."""
        return GenerationReport(
            wanted=self._n,
            made=dict(sorted(self._made.items())),
            exhausted=tuple(sorted(self._exhausted)),
            held_out_draws=self._held_out_draws,
            repeated=self._repeated,
        )

    def __iter__(self) -> Iterator[Example]:
        """At most ``n`` examples, the levels mixed; fewer only where all levels are exhausted."""
        open_cells = dict(self._weights)
        while self._made.total() < self._n and open_cells:
            cell = self._random.choices(list(open_cells), list(open_cells.values()))[0]
            problem = self._draw(cell)
            if problem is None:
                del open_cells[cell]
                self._exhausted.append(_name(cell))
                continue
            self._made[_name(cell)] += 1
            yield to_example(problem, SOURCE)

    def _draw(self, cell: Cell) -> Problem | None:
        """A usable problem of the level, or None where it is exhausted."""
        family, level = self._families[cell[0]], cell[1]
        used = self._used[cell]
        cap = self._batch_cap(family, level)
        for _ in range(_PATIENCE):
            problem = family.generate(level, self._random.getrandbits(48))
            if problem.key in self._held_out:
                self._held_out_draws += 1
                continue
            in_batch, before = used[problem.key], self._uses(problem.key)
            if in_batch < cap and in_batch + before < self._epoch_cap:
                self._repeated += bool(in_batch + before)
                used[problem.key] += 1
                return problem
        return None

    def _batch_cap(self, family: TaskFamily, level: int) -> int:
        return 1 if family.capacity(level) is None else self._epoch_cap


def generate_batch(
    mix: Sequence[Share],
    n: int,
    seed: int,
    held_out: Container[str],
    epoch_cap: int,
    uses: Callable[[str], int] = lambda _: 0,
) -> BatchGeneration:
    """A batch of ``n`` examples; see BatchGeneration."""
    return BatchGeneration(mix, n, seed, held_out, epoch_cap, uses)


def _name(cell: Cell) -> str:
    return f"{cell[0]}/{cell[1]}"

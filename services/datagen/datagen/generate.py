"""Make a batch: a stream of examples of a mix, held to the rules of a batch whoever drafts them.

Nothing held out is in it. A finite level gives its items again and again, until each has been used as often as the
epoch cap allows; then it is exhausted, its weight goes to the others, and the report says so. A level without an end
gives no item twice in one batch. The same seed, mix and uses give the same batch, where the generator repeats itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from ratchet.data.example import Example
from ratchet.data.key_counts import UsageCounts
from ratchet.errors import DataError
from ratchet.tasks import registry

from datagen.generators.generator import Cell, Draft, GenerationContext, Generator, Order
from datagen.generators.tasks import Tasks

Share = tuple[str, int, float]
"""Family, level, weight."""

LARGEST_ORDER: Final = 80_000
SMALLEST_ORDER: Final = 64
"""A generator is not asked for less: what is lacking in the end may take some drafts to find."""

_PATIENCE = 300
"""Refused drafts in a row after which a level is exhausted: at one usable item in 50, once in 400."""
_DRY_ORDERS = 5
"""Orders in a row that come to nothing after which the batch ends short."""


class GenerationReport(BaseModel):
    """What a batch came to. ``made`` counts examples under ``family/level``; ``exhausted`` lists levels so.

    ``refused`` counts drafts by reason, and ``cost`` what the generator used (requests, tokens).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    wanted: int
    made: dict[str, int] = Field(default_factory=dict)
    exhausted: tuple[str, ...] = ()
    refused: dict[str, int] = Field(default_factory=dict)
    cost: dict[str, int] = Field(default_factory=dict)
    repeated: int = 0
    """Examples whose item is in this batch before."""

    @property
    def examples(self) -> int:
        return sum(self.made.values())


class BatchGeneration:
    """One batch in the making: take its lines once, then read ``report``.

    ``uses`` tells how often an item was trained on before. Raises DataError for a mix that gives nothing.
    """

    def __init__(
        self,
        generator: Generator,
        workshop: GenerationContext,
        mix: Sequence[Share],
        n: int,
        seed: int,
        epoch_cap: int,
        uses: Callable[[str], int] = lambda _: 0,
    ):
        self._open: dict[Cell, float] = {(family, level): weight for family, level, weight in mix if weight > 0}
        if not self._open:
            raise DataError("the mix gives weight to no level.")
        self._caps = {cell: _batch_cap(cell, epoch_cap) for cell in self._open}
        self._generator, self._workshop = generator, workshop
        self._n, self._seed, self._epoch_cap, self._uses = n, seed, epoch_cap, uses
        self._counts = UsageCounts()
        self._made: Counter[str] = Counter()
        self._refused_in_a_row: Counter[Cell] = Counter()
        self._exhausted: list[str] = []
        self._refused: Counter[str] = Counter()
        self._repeated = 0

    @property
    def report(self) -> GenerationReport:
        """So far; final once the stream has ended."""
        tally = self._workshop.tally
        return GenerationReport(
            wanted=self._n,
            made=dict(sorted(self._made.items())),
            exhausted=tuple(sorted(self._exhausted)),
            refused=dict(sorted((self._refused + tally.refused).items())),
            cost=dict(sorted(tally.cost.items())),
            repeated=self._repeated,
        )

    def __iter__(self) -> Iterator[Example]:
        """The lines, read as examples."""
        return map(Example.model_validate_json, self.lines())

    def lines(self) -> Iterator[str]:
        """At most ``n`` lines of JSON, the levels mixed; fewer only where the generator has no more of them."""
        part = dry = 0
        while self._open and dry < _DRY_ORDERS and self._made.total() < self._n:
            before = self._made.total()
            order = self._order(part)
            for draft in self._generator.drafts(order, self._workshop):
                if self._takes(draft):
                    yield draft.line
                    if self._made.total() == self._n:
                        break
            dry = dry + 1 if self._made.total() == before and self._order(part) == order else 0
            part += 1
        self._counts.close()

    def _order(self, part: int) -> Order:
        lacking = max(SMALLEST_ORDER, min(LARGEST_ORDER, self._n - self._made.total()))
        weights = tuple((family, level, weight) for (family, level), weight in self._open.items())
        return Order(seed=self._seed, part=part, count=lacking, weights=weights)

    def _takes(self, draft: Draft) -> bool:
        """Whether the draft goes into the batch; counts it either way."""
        if draft.cell not in self._open:
            if draft.cell not in self._caps:
                self._refused["not_ordered"] += 1
            return False
        if draft.key in self._workshop.held_out:
            self._refused["held_out"] += 1
            return False
        in_batch = self._counts[draft.key]
        if in_batch >= self._caps[draft.cell] or in_batch + self._uses(draft.key) >= self._epoch_cap:
            self._refuse_used(draft)
            return False
        self._counts.add(draft.key)
        self._repeated += in_batch > 0
        self._refused_in_a_row[draft.cell] = 0
        self._made[_name(draft.cell)] += 1
        return True

    def _refuse_used(self, draft: Draft) -> None:
        self._refused["used_up"] += 1
        self._refused_in_a_row[draft.cell] += 1
        if self._refused_in_a_row[draft.cell] >= _PATIENCE:
            del self._open[draft.cell]
            self._exhausted.append(_name(draft.cell))


def generate_batch(
    mix: Sequence[Share],
    n: int,
    seed: int,
    held_out: Container[str],
    epoch_cap: int,
    uses: Callable[[str], int] = lambda _: 0,
) -> BatchGeneration:
    """A batch of ``n`` examples of task families, made in this process; see BatchGeneration."""
    return BatchGeneration(Tasks(), GenerationContext(held_out, Path()), mix, n, seed, epoch_cap, uses)


def _batch_cap(cell: Cell, epoch_cap: int) -> int:
    return 1 if registry.get(cell[0]).capacity(cell[1]) is None else epoch_cap


def _name(cell: Cell) -> str:
    return f"{cell[0]}/{cell[1]}"

"""Generates a batch: a stream of examples of a mix, checked by the same rules for every generator; and decides when one
may be generated.

Nothing held out is in it. A finite level gives its items again and again, until each has been used as often as the
epoch cap allows; then it is exhausted, its weight goes to the others, and the report says so. A level without an end
gives no item twice in one batch. The same seed, mix and uses give the same batch, where the generator is deterministic.
This module does not know the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from ratchet.backoff import pause_s
from ratchet.data.example import Example
from ratchet.data.usage_counts import UsageCounts
from ratchet.errors import DataError
from ratchet.settings.data import GenerationSettings, SourceSettings
from ratchet.tasks import registry

from datagen.generators.generator import Cell, Draft, GenerationContext, Generator, Order
from datagen.generators.tasks import Tasks

Share = tuple[str, int, float]
"""Family, level, weight."""

LARGEST_ORDER: Final = 80_000
SMALLEST_ORDER: Final = 64
"""Smallest order to a generator, since the last missing examples may take several drafts each."""

MOST_REFUSALS = 300
"""Refused drafts in a row after which a level is exhausted: at one usable item in 50, once in 400."""
_DRY_ORDERS = 5
"""Orders in a row without a usable draft after which the batch ends short."""


class GenerationReport(BaseModel):
    """What a batch contains. ``made`` counts examples by ``family/level``; ``exhausted`` lists levels in that form.

    ``refused`` counts drafts by reason, and ``cost`` what the generator used (requests, tokens).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    wanted: int
    made: dict[str, int] = Field(default_factory=dict)
    exhausted: tuple[str, ...] = ()
    refused: dict[str, int] = Field(default_factory=dict)
    cost: dict[str, int] = Field(default_factory=dict)
    repeated: int = 0
    """Examples whose item is in this batch already."""

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
        context: GenerationContext,
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
        self._generator, self._context = generator, context
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
        tally = self._context.tally
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
            for draft in self._generator.drafts(order, self._context):
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
        if draft.key in self._context.held_out:
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
        if self._refused_in_a_row[draft.cell] >= MOST_REFUSALS:
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


EMPTY = "nothing made"
"""Outcome of a refill that made no example."""

DEAD = "dead letter"
"""Stands for a refill that became a dead letter."""

EMPTY_FIRST_S, EMPTY_LAST_S = 60.0, 3_600.0


@dataclass(frozen=True)
class FinishedRefill:
    """A refill with a verdict or a dead letter, ``age_s`` seconds ago."""

    outcome: str
    age_s: float


def pause_before_next_s(done: Sequence[FinishedRefill], cooldown_s: float) -> float:
    """Seconds until the next refill may begin; ``done`` has the newest first.

    The pause doubles with each empty refill, from one minute to an hour, so that impossible refills are not retried
    constantly. A single dead letter may be due to a bad seed, and adds no pause.
    """
    if not done:
        return 0.0
    run = [one.outcome for one in takewhile(lambda one: one.outcome in (EMPTY, DEAD), done)]
    empty = len(run) - (DEAD in run)
    empty_s = pause_s(empty, EMPTY_FIRST_S, EMPTY_LAST_S) if empty else 0.0
    return max(0.0, max(empty_s, cooldown_s) - done[0].age_s)


def allowed_examples(wanted: int, made_within_the_hour: int, settings: GenerationSettings) -> int:
    """Examples that the next batch may have: the wanted number, within the hourly budget."""
    if settings.hourly_examples is None:
        return wanted
    return max(0, min(wanted, settings.hourly_examples - made_within_the_hour))


def affordable_sources(settings: GenerationSettings, used_today: Mapping[str, int]) -> list[SourceSettings]:
    """The sources that are still below their daily tokens."""
    return [
        source
        for source in settings.sources
        if source.daily_tokens is None or used_today.get(source.name, 0) < source.daily_tokens
    ]


def choose_source(sources: Sequence[SourceSettings], seed: int) -> SourceSettings:
    """The source of the batch with this seed."""
    return Random(f"{seed} source").choices(sources, [source.share for source in sources])[0]

"""Filling a batch from a mix: reproducible by seed, never a held-out item, never for ever at an exhausted level."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from ratchet.data.example import Example
from ratchet.tasks import registry
from ratchet.tasks.family import TaskFamily, to_example

Level = tuple[str, int]
Uses = Callable[[str], int]
PATIENCE = 500
"""Draws in a row that bring nothing usable before a level counts as exhausted."""


@dataclass
class Yield:
    """What a generator has done so far: rows by level, and the levels found exhausted on the way."""

    rows: Counter[Level] = field(default_factory=Counter)
    exhausted: set[Level] = field(default_factory=set)


@dataclass(frozen=True)
class BatchGenerator:
    """Generates ``n`` examples of a mix. ``uses`` says how often an item was trained on before this batch."""

    mix: Mapping[Level, float]
    n: int
    seed: int
    held_out: Container[str]
    uses: Uses
    epoch_cap: int
    source: str = "generation"

    def examples(self, told: Yield) -> Iterator[Example]:
        """Stream the batch, levels interleaved in the mix's proportions; ``told`` is kept up to date.

        Stops early only when every level of the mix is exhausted.
        """
        random = Random(self.seed)
        weights = {level: weight for level, weight in self.mix.items() if weight > 0}
        draws = {level: self._draws(level, Random(f"{self.seed}:{level}")) for level in weights}
        made = 0
        while made < self.n and weights:
            level = random.choices(list(weights), list(weights.values()))[0]
            example = next(draws[level], None)
            if example is None:
                told.exhausted.add(level)
                del weights[level]
                continue
            told.rows[level] += 1
            made += 1
            yield example

    def _draws(self, level: Level, random: Random) -> Iterator[Example]:
        family: TaskFamily = registry.get(level[0])
        mine: Counter[str] = Counter()
        idle = 0
        while idle < PATIENCE:
            problem = family.generate(level[1], random.getrandbits(48))
            mine[problem.key] += 1
            if problem.key in self.held_out or mine[problem.key] + self.uses(problem.key) > self.epoch_cap:
                idle += 1
                continue
            idle = 0
            yield to_example(problem, self.source)

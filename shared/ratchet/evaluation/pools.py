"""Draw the held-out pools: probe to learn from, eval to judge by, confirm for the deployment gate alone.

A draw depends on the seed, the levels and the sizes, and on nothing else. No item is in two pools. Of a finite level
the pools take the held-out share at most, divided among them in proportion to their sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from random import Random

from ratchet.data.example import Example
from ratchet.errors import DataError
from ratchet.evaluation.holdout import Cell, HoldOut, quota
from ratchet.evaluation.suite import POOLS, Pool, Suite
from ratchet.tasks.family import Problem, TaskFamily, to_example
from ratchet.tasks.graders import grade_example, item_key

_PATIENCE = 3_000
"""Draws in a row without a new held-out item after which a level counts as drawn out."""


def build_pools(
    families: Mapping[str, TaskFamily], cells: Sequence[Cell], sizes: Mapping[Pool, int], held: HoldOut
) -> dict[Pool, Suite]:
    """The first suite of each pool, with ``sizes`` items over all cells, or as many as finite levels leave."""
    return {pool: _suite(families, cells, sizes, held, pool, 0) for pool in POOLS}


def rotated_confirm(
    families: Mapping[str, TaskFamily], cells: Sequence[Cell], sizes: Mapping[Pool, int], held: HoldOut, version: int
) -> Suite:
    """The confirm suite of this version: items that no earlier version and no other pool has.

    A finite level that has no unused items left begins again with those used longest ago.
    """
    return _suite(families, cells, sizes, held, "confirm", version)


def split_examples(
    examples: Iterable[Example], sizes: Mapping[Pool, int], held: HoldOut
) -> tuple[dict[Pool, Suite], HoldOut]:
    """Suites of a user's own examples, and the hold-out with their keys. What it does not contain is left to train on.

    The hash of its key decides whether an example is held out, so the same file is split the same way for ever.
    Examples whose own answer is not graded correct are passed over. Raises DataError where a pool stays empty.
    """
    chosen: dict[str, Example] = {}
    for example in examples:
        key = item_key(example)
        if held.lot(key) < held.share and example.answer and grade_example(example, example.answer).correct:
            chosen.setdefault(key, example)
    drawn = [chosen[key] for key in sorted(chosen, key=held.lot)]
    shares = _allotment(sizes, len(drawn))
    suites: dict[Pool, Suite] = {}
    for pool in POOLS:
        taken, drawn = drawn[: shares[pool]], drawn[shares[pool] :]
        if not taken:
            raise DataError(f"{len(chosen)} examples held out are too few for three pools; give more rows.")
        suites[pool] = Suite.of(pool, taken)
    return suites, held.with_keys(key for suite in suites.values() for key in suite.keys)


def _suite(
    families: Mapping[str, TaskFamily],
    cells: Sequence[Cell],
    sizes: Mapping[Pool, int],
    held: HoldOut,
    pool: Pool,
    version: int,
) -> Suite:
    wanted = _by_cell(cells, sizes)
    items: list[Example] = []
    for cell in cells:
        family = families[cell[0]]
        shares = _shares(family, cell[1], wanted[cell], held.share)
        before = sum(shares[other] for other in POOLS[: POOLS.index(pool)])
        problems = _window(family, cell[1], held, before, shares[pool], version)
        items += [to_example(problem, source=pool) for problem in problems]
    return Suite.of(pool, items, version)


def _by_cell(cells: Sequence[Cell], sizes: Mapping[Pool, int]) -> dict[Cell, dict[Pool, int]]:
    """Each pool's size spread evenly; what does not divide goes to the first levels."""
    return {
        cell: {pool: sizes[pool] // len(cells) + (place < sizes[pool] % len(cells)) for pool in POOLS}
        for place, cell in enumerate(cells)
    }


def _shares(family: TaskFamily, level: int, wanted: Mapping[Pool, int], share: float) -> dict[Pool, int]:
    capacity = family.capacity(level)
    return dict(wanted) if capacity is None else _allotment(wanted, quota(capacity, share))


def _allotment(wanted: Mapping[Pool, int], room: int) -> dict[Pool, int]:
    """What each pool gets of so many items: what it wants, or its proportional part, by largest remainders."""
    total = sum(wanted.values())
    if total <= room:
        return dict(wanted)
    parts = {pool: wanted[pool] * room / total for pool in POOLS}
    shares = {pool: int(part) for pool, part in parts.items()}
    by_remainder = sorted(POOLS, key=lambda pool: shares[pool] - parts[pool])
    for pool in by_remainder[: room - sum(shares.values())]:
        shares[pool] += 1
    return shares


def _window(family: TaskFamily, level: int, held: HoldOut, before: int, size: int, version: int) -> list[Problem]:
    """The pool's items of this version, past those of the pools before it in the level's stream."""
    start = version * size
    own = list(islice(_held_out(family, level, held), before, before + start + size))
    return [own[(start + place) % len(own)] for place in range(min(size, len(own)))]


def _held_out(family: TaskFamily, level: int, held: HoldOut) -> Iterator[Problem]:
    """Every held-out problem of the level once, in an order that the seed decides."""
    random = Random(f"{held.seed} {family.name} {level}")
    seen: set[str] = set()
    misses = 0
    while misses < _PATIENCE:
        problem = family.generate(level, random.getrandbits(48))
        misses += 1
        if problem.key in held and problem.key not in seen:
            seen.add(problem.key)
            misses = 0
            yield problem

"""Drawing the held-out pools: disjoint from each other by item key, and small beside what a finite level has.

The pools of one seed are the same on every machine. A rotation is a later ordinal of the same pool, disjoint from all
earlier draws because what they hold is passed in as ``taken``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from ratchet.data.example import Example
from ratchet.errors import DataError
from ratchet.evaluation.suite import Pool, Suite
from ratchet.tasks import registry
from ratchet.tasks.family import TaskFamily, to_example

Level = tuple[str, int]
PATIENCE = 200
"""Draws in a row that bring nothing new before a level counts as used up."""


def draw_pools(
    levels: Sequence[Level],
    sizes: Mapping[Pool, int],
    seed: int,
    held_out_share: float,
    taken: Collection[str] = (),
) -> dict[Pool, Suite]:
    """One suite a pool, its size shared equally by the (family, level) pairs.

    Of a finite level all pools together take at most ``held_out_share``, each in proportion to its size. Keys in
    ``taken`` are not drawn. Raises DataError where a pool would be empty.
    """
    used = set(taken)
    drawn: dict[Pool, list[Example]] = {pool: [] for pool in sizes}
    for position, (name, level) in enumerate(levels):
        family = registry.get(name)
        quotas = _quotas(family, level, _shares(sizes, position, len(levels)), held_out_share)
        seeds = iter(range(seed * 1_000_003, (seed + 1) * 1_000_003))
        for pool, quota in quotas.items():
            drawn[pool] += _draw(family, level, quota, seeds, used)
    empty = [pool for pool, items in drawn.items() if not items]
    if empty:
        raise DataError(
            f"no item is left for the {' and '.join(empty)} pool: raise suites.held_out_share or add levels."
        )
    return {pool: Suite(pool=pool, items=tuple(items)) for pool, items in drawn.items()}


def _shares(sizes: Mapping[Pool, int], position: int, levels: int) -> dict[Pool, int]:
    """Sizes for one of the levels; the first levels take the remainder."""
    return {pool: size // levels + (position < size % levels) for pool, size in sizes.items()}


def _quotas(family: TaskFamily, level: int, wanted: dict[Pool, int], share: float) -> dict[Pool, int]:
    capacity = family.capacity(level)
    if capacity is None or sum(wanted.values()) <= capacity * share:
        return wanted
    room = int(capacity * share)
    total = sum(wanted.values())
    return {pool: size * room // total for pool, size in wanted.items()}


def _draw(family: TaskFamily, level: int, quota: int, seeds: Iterator[int], used: set[str]) -> list[Example]:
    found: list[Example] = []
    idle = 0
    while len(found) < quota and idle < PATIENCE:
        problem = family.generate(level, next(seeds))
        if problem.key in used:
            idle += 1
            continue
        idle = 0
        used.add(problem.key)
        found.append(to_example(problem, "suite"))
    return found

"""Builds the suites: probe for mining, eval for the judges, confirm for the deployment gate alone.

A suite has items drawn from task families, and the held-out rows of users' tasks, which are split where they come in
(ratchet.user_tasks.split). A draw depends only on the seed, the levels and the sizes. No item is in two pools. From a
finite level the pools take at most the held-out share, divided in proportion to their sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from random import Random

from ratchet.data.example import Example
from ratchet.errors import PreconditionFailed
from ratchet.evaluation.suite import POOLS, Cell, HoldOut, Pool, Suite, hold_out, keyed, quota
from ratchet.settings.judging import SuiteSettings
from ratchet.tasks import registry
from ratchet.tasks.family import Problem, TaskFamily, to_example
from ratchet.tasks.graders import item_key

_MISSES_WHEN_EXHAUSTED = 3_000
"""A level counts as exhausted after this many consecutive draws without a new held-out item."""


def cells(settings: SuiteSettings) -> list[Cell]:
    """Every (family, level) in the settings, in their order."""
    return [(family.name, level) for family in settings.families for level in family.levels]


@lru_cache(maxsize=4)
def held_out(settings: SuiteSettings) -> HoldOut:
    """The held-out items of families, the same in every process. Held-out items of free text are in the suites."""
    return hold_out(_families(settings), cells(settings), settings.seed, settings.held_out_share)


HeldRows = Mapping[Pool, Sequence[Example]]
"""Held-out rows of users' tasks, by pool."""


def build_suites(settings: SuiteSettings, own: HeldRows | None = None) -> dict[Pool, Suite]:
    """The suites of the first run: items of the families, and the held-out rows of users' tasks.

    A row that asks the same as an item of a family is left out, so that no two pools share it. Raises
    PreconditionFailed if a pool would be empty.
    """
    drawn = _of_families(settings) if settings.families else {}
    taken = {key for suite in drawn.values() for key in suite.keys}
    suites = {}
    for pool in POOLS:
        items = list(drawn[pool].items) if pool in drawn else []
        items += [row for row in (own or {}).get(pool, ()) if item_key(row) not in taken]
        if not items:
            raise PreconditionFailed(
                "there is nothing to test a model on: add data of your own (`ratchet data add FILE`), or name built-in "
                "families in suites.families."
            )
        suites[pool] = Suite.of(pool, items)
    return suites


def rotate_confirm(settings: SuiteSettings, used: Suite) -> Suite:
    """The next version of the confirm suite, with new items of the families and the same held-out rows of the user.

    Those rows are not drawn again from the user's files, whose current rows may have been trained on.
    """
    version = used.version + 1
    fresh = confirm_pool(_families(settings), cells(settings), _sizes(settings), held_out(settings), version)
    kept = {item.metadata["key"]: item for item in used.items if item.metadata.get("source") != "confirm"}
    return Suite.of("confirm", [*(i for i in fresh.items if i.metadata["key"] not in kept), *kept.values()], version)


def updated_suites(
    settings: SuiteSettings, current: Mapping[Pool, Suite], own: HeldRows | None = None
) -> dict[Pool, Suite]:
    """The next versions of the suites that differ from the settings' families and levels, or from the held-out rows of
    users' tasks; empty if none does.

    Items of remaining levels are kept, so that no item changes its pool. Items of removed levels are dropped, and items
    of new levels are drawn, each level with an equal share of a pool. Of users' rows, those of ``own`` are added or
    replaced, and the others are kept.
    """
    named = cells(settings)
    held_by = {(item.family, item.level) for pool, suite in current.items() for item in _drawn(pool, suite)}
    new = [cell for cell in named if cell not in held_by]
    sizes: dict[Pool, int] = (
        {pool: -(-size * len(new) // len(named)) for pool, size in _sizes(settings).items()} if new else {}
    )
    fresh = build_pools(_families(settings), new, sizes, held_out(settings)) if new else {}
    suites = {}
    for pool, suite in current.items():
        gone = {item.id for item in _drawn(pool, suite) if (item.family, item.level) not in named}
        items = {item.metadata["key"]: item for item in suite.items if item.id not in gone}
        items |= {row.metadata["key"]: row for row in map(keyed, (own or {}).get(pool, ()))}
        for item in fresh[pool].items if pool in fresh else ():
            items.setdefault(item.metadata["key"], item)
        if items and list(items.values()) != list(suite.items):
            suites[pool] = Suite.of(pool, items.values(), suite.version + 1)
    return suites


def _drawn(pool: Pool, suite: Suite) -> list[Example]:
    """Items that were drawn from families; the others are the user's rows."""
    return [item for item in suite.items if item.metadata.get("source") == pool]


def _of_families(settings: SuiteSettings) -> dict[Pool, Suite]:
    return build_pools(_families(settings), cells(settings), _sizes(settings), held_out(settings))


def _families(settings: SuiteSettings) -> dict[str, TaskFamily]:
    return {family.name: registry.get(family.name) for family in settings.families}


def _sizes(settings: SuiteSettings) -> dict[Pool, int]:
    return {"probe": settings.probe_items, "eval": settings.eval_items, "confirm": settings.confirm_items}


def build_pools(
    families: Mapping[str, TaskFamily], cells: Sequence[Cell], sizes: Mapping[Pool, int], held: HoldOut
) -> dict[Pool, Suite]:
    """The first suite of each pool, with ``sizes`` items over all cells, or fewer if finite levels have fewer."""
    return {pool: _suite(families, cells, sizes, held, pool, 0) for pool in POOLS}


def confirm_pool(
    families: Mapping[str, TaskFamily], cells: Sequence[Cell], sizes: Mapping[Pool, int], held: HoldOut, version: int
) -> Suite:
    """The confirm suite of this version, with items that are in no earlier version and no other pool.

    When a finite level has no unused items left, those used longest ago are used again.
    """
    return _suite(families, cells, sizes, held, "confirm", version)


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
    """Each pool's size divided evenly among the cells; the remainder goes to the first ones."""
    return {
        cell: {pool: sizes[pool] // len(cells) + (place < sizes[pool] % len(cells)) for pool in POOLS}
        for place, cell in enumerate(cells)
    }


def _shares(family: TaskFamily, level: int, wanted: Mapping[Pool, int], share: float) -> dict[Pool, int]:
    capacity = family.capacity(level)
    return dict(wanted) if capacity is None else _allotment(wanted, quota(capacity, share))


def _allotment(wanted: Mapping[Pool, int], room: int) -> dict[Pool, int]:
    """The number of items for each pool: its wanted size, or, if ``room`` is less in total, its proportional share by
    the largest remainder method."""
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
    """The pool's items of this version, which follow those of the earlier pools in the level's stream."""
    start = version * size
    own = list(islice(_held_out(family, level, held), before, before + start + size))
    return [own[(start + place) % len(own)] for place in range(min(size, len(own)))]


def _held_out(family: TaskFamily, level: int, held: HoldOut) -> Iterator[Problem]:
    """Every held-out problem of the level once, in an order that depends on the seed."""
    random = Random(f"{held.seed} {family.name} {level}")
    seen: set[str] = set()
    misses = 0
    while misses < _MISSES_WHEN_EXHAUSTED:
        problem = family.generate(level, random.getrandbits(48))
        misses += 1
        if problem.key in held and problem.key not in seen:
            seen.add(problem.key)
            misses = 0
            yield problem

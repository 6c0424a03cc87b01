"""Builds the suites from the settings: probe for mining, eval for the judges, confirm for the deployment gate alone.

A draw depends only on the seed, the levels and the sizes. No item is in two pools. From a finite level the pools take
at most the held-out share, divided in proportion to their sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import lru_cache
from itertools import islice
from pathlib import Path
from random import Random

from ratchet.data.example import Example
from ratchet.data.jsonl import read_examples
from ratchet.errors import DataError, SettingsError
from ratchet.evaluation.suite import POOLS, Cell, HoldOut, Pool, Suite, hold_out, quota
from ratchet.settings.judging import SuiteSettings
from ratchet.tasks import registry
from ratchet.tasks.family import Problem, TaskFamily, to_example
from ratchet.tasks.graders import grade_example, item_key

_MISSES_WHEN_EXHAUSTED = 3_000
"""A level counts as exhausted after this many consecutive draws without a new held-out item."""


def cells(settings: SuiteSettings) -> list[Cell]:
    """Every (family, level) in the settings, in their order."""
    return [(family.name, level) for family in settings.families for level in family.levels]


@lru_cache(maxsize=4)
def held_out(settings: SuiteSettings) -> HoldOut:
    """The held-out items of families, the same in every process. Held-out items of free text are in the suites."""
    return hold_out(_families(settings), cells(settings), settings.seed, settings.held_out_share)


def build_suites(settings: SuiteSettings) -> dict[Pool, Suite]:
    """The suites of the first run, with items of the families, then held-out rows of the user's files.

    The files are read only here; the suites are kept as artifacts. A row that asks the same as an item of a family is
    left out, so that no two pools share it.
    """
    suites = [_of_families(settings)] if settings.families else []
    if settings.files:
        suites.append(_of_files(settings, {key for part in suites for suite in part.values() for key in suite.keys}))
    return {pool: Suite.of(pool, [item for part in suites for item in part[pool].items]) for pool in POOLS}


def rotate_confirm(settings: SuiteSettings, used: Suite) -> Suite:
    """The next version of the confirm suite, with new items of the families and the same held-out rows of the user.

    Those rows are not drawn again from the user's files, whose current rows may have been trained on.
    """
    version = used.version + 1
    fresh = confirm_pool(_families(settings), cells(settings), _sizes(settings), held_out(settings), version)
    kept = {item.metadata["key"]: item for item in used.items if item.metadata.get("source") != "confirm"}
    return Suite.of("confirm", [*(i for i in fresh.items if i.metadata["key"] not in kept), *kept.values()], version)


def updated_suites(settings: SuiteSettings, current: Mapping[Pool, Suite]) -> dict[Pool, Suite]:
    """The next versions of the suites if the settings have other families or levels than the current suites, else
    empty.

    Items of remaining levels and the user's rows are kept, so that no item changes its pool. Items of removed levels
    are dropped, and items of new levels are drawn, each level with an equal share of a pool.
    """
    named = cells(settings)
    held_by = {(item.family, item.level) for pool, suite in current.items() for item in _drawn(pool, suite)}
    new = [cell for cell in named if cell not in held_by]
    if not new and held_by <= set(named):
        return {}
    sizes: dict[Pool, int] = {pool: -(-size * len(new) // len(named)) for pool, size in _sizes(settings).items()}
    fresh = build_pools(_families(settings), new, sizes, held_out(settings)) if new else {}
    suites = {}
    for pool, suite in current.items():
        gone = {item.id for item in _drawn(pool, suite) if (item.family, item.level) not in named}
        kept = [item for item in suite.items if item.id not in gone]
        drawn = fresh[pool].items if pool in fresh else ()
        keys = {item.metadata["key"] for item in kept}
        more = [item for item in drawn if item.metadata["key"] not in keys]
        if gone or more:
            suites[pool] = Suite.of(pool, [*kept, *more], suite.version + 1)
    return suites


def _drawn(pool: Pool, suite: Suite) -> list[Example]:
    """Items that were drawn from families; the others are the user's rows."""
    return [item for item in suite.items if item.metadata.get("source") == pool]


def _of_families(settings: SuiteSettings) -> dict[Pool, Suite]:
    return build_pools(_families(settings), cells(settings), _sizes(settings), held_out(settings))


def _of_files(settings: SuiteSettings, drawn: Set[str]) -> dict[Pool, Suite]:
    rows = (row for row in _rows(settings.files) if item_key(row) not in drawn)
    return split_examples(rows, _sizes(settings), held_out(settings))[0]


def _rows(files: Sequence[Path]) -> Iterator[Example]:
    """The readable rows of all files; the data gate reports the others."""
    for file in files:
        try:
            yield from (row for _, row in read_examples(file) if isinstance(row, Example))
        except DataError as error:
            raise SettingsError(f"suites.files: {error}") from error


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


def split_examples(
    examples: Iterable[Example], sizes: Mapping[Pool, int], held: HoldOut
) -> tuple[dict[Pool, Suite], HoldOut]:
    """Suites of a user's examples, and the hold-out with their keys. Examples not in it may be trained on.

    The hash of an example's key decides whether it is held out, so the same file is always split the same way. Examples
    whose answer is not graded as correct are left out. Raises DataError if a pool would be empty.
    """
    chosen: dict[str, Example] = {}
    for example in examples:
        key = item_key(example)
        if held.unit_hash(key) < held.share and example.answer and grade_example(example, example.answer).correct:
            chosen.setdefault(key, example)
    drawn = [chosen[key] for key in sorted(chosen, key=held.unit_hash)]
    shares = _allotment(sizes, len(drawn))
    suites: dict[Pool, Suite] = {}
    for pool in POOLS:
        taken, drawn = drawn[: shares[pool]], drawn[shares[pool] :]
        if not taken:
            raise DataError(f"{len(chosen)} held-out examples are too few for three pools; provide more rows.")
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

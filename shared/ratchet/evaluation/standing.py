"""What the settings say is taught, tested and held out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from functools import lru_cache
from pathlib import Path

from ratchet.data.example import Example
from ratchet.data.jsonl import read_examples
from ratchet.errors import DataError, SettingsError
from ratchet.evaluation.holdout import Cell, HoldOut, hold_out
from ratchet.evaluation.pools import build_pools, rotated_confirm, split_examples
from ratchet.evaluation.suite import POOLS, Pool, Suite
from ratchet.settings.suites import SuiteSettings
from ratchet.tasks import registry
from ratchet.tasks.family import TaskFamily
from ratchet.tasks.graders import item_key


def cells(settings: SuiteSettings) -> list[Cell]:
    """Every (family, level) that is taught, in the settings' order."""
    return [(family.name, level) for family in settings.families for level in family.levels]


@lru_cache(maxsize=4)
def held_out(settings: SuiteSettings) -> HoldOut:
    """The items of families that may never be trained on; the same in every process. Free text: see the suites."""
    return hold_out(_families(settings), cells(settings), settings.seed, settings.held_out_share)


def first_suites(settings: SuiteSettings) -> dict[Pool, Suite]:
    """The suites of the first run: items of the families, then held-out rows of the user's files.

    The files are read here and never again; the suites are kept as artifacts. A row that asks what an item of a family
    asks is passed over, so that no two pools share it.
    """
    suites = [_of_families(settings)] if settings.families else []
    if settings.files:
        suites.append(_of_files(settings, {key for part in suites for suite in part.values() for key in suite.keys}))
    return {pool: Suite.of(pool, [item for part in suites for item in part[pool].items]) for pool in POOLS}


def next_confirm(settings: SuiteSettings, worn: Suite) -> Suite:
    """The confirm suite after this one: fresh items of the families, and the user's held-out rows of it again.

    Those rows are never drawn anew from the user's files: what stands there now may have been trained on.
    """
    version = worn.version + 1
    fresh = rotated_confirm(_families(settings), cells(settings), _sizes(settings), held_out(settings), version)
    kept = {item.metadata["key"]: item for item in worn.items if item.metadata.get("source") != "confirm"}
    return Suite.of("confirm", [*(i for i in fresh.items if i.metadata["key"] not in kept), *kept.values()], version)


def renewed(settings: SuiteSettings, standing: Mapping[Pool, Suite]) -> dict[Pool, Suite]:
    """The suites' next versions where other families or levels are named than the standing suites hold; else none.

    Items of levels that stay are kept, as are the user's rows, so that no item changes its pool; those of levels that
    are named no more are dropped, and those of new levels drawn, each level as many as an equal share of a pool.
    """
    named = cells(settings)
    held_by = {(item.family, item.level) for pool, suite in standing.items() for item in _drawn(pool, suite)}
    new = [cell for cell in named if cell not in held_by]
    if not new and held_by <= set(named):
        return {}
    sizes: dict[Pool, int] = {pool: -(-size * len(new) // len(named)) for pool, size in _sizes(settings).items()}
    fresh = build_pools(_families(settings), new, sizes, held_out(settings)) if new else {}
    suites = {}
    for pool, suite in standing.items():
        gone = {item.id for item in _drawn(pool, suite) if (item.family, item.level) not in named}
        kept = [item for item in suite.items if item.id not in gone]
        drawn = fresh[pool].items if pool in fresh else ()
        keys = {item.metadata["key"] for item in kept}
        more = [item for item in drawn if item.metadata["key"] not in keys]
        if gone or more:
            suites[pool] = Suite.of(pool, [*kept, *more], suite.version + 1)
    return suites


def _drawn(pool: Pool, suite: Suite) -> list[Example]:
    """Items that were drawn from families; the others are the user's."""
    return [item for item in suite.items if item.metadata.get("source") == pool]


def _of_families(settings: SuiteSettings) -> dict[Pool, Suite]:
    return build_pools(_families(settings), cells(settings), _sizes(settings), held_out(settings))


def _of_files(settings: SuiteSettings, drawn: Set[str]) -> dict[Pool, Suite]:
    rows = (row for row in _rows(settings.files) if item_key(row) not in drawn)
    return split_examples(rows, _sizes(settings), held_out(settings))[0]


def _rows(files: Sequence[Path]) -> Iterator[Example]:
    """The readable rows of all files; the gate names the others."""
    for file in files:
        try:
            yield from (row for _, row in read_examples(file) if isinstance(row, Example))
        except DataError as error:
            raise SettingsError(f"suites.files: {error}") from error


def _families(settings: SuiteSettings) -> dict[str, TaskFamily]:
    return {family.name: registry.get(family.name) for family in settings.families}


def _sizes(settings: SuiteSettings) -> dict[Pool, int]:
    return {"probe": settings.probe_items, "eval": settings.eval_items, "confirm": settings.confirm_items}

"""What the settings say is taught, tested and held out."""

from __future__ import annotations

from functools import lru_cache

from ratchet.evaluation.holdout import Cell, HoldOut, hold_out
from ratchet.evaluation.pools import build_pools, rotated_confirm
from ratchet.evaluation.suite import Pool, Suite
from ratchet.settings.suites import SuiteSettings
from ratchet.tasks import registry
from ratchet.tasks.family import TaskFamily


def cells(settings: SuiteSettings) -> list[Cell]:
    """Every (family, level) that is taught, in the settings' order."""
    return [(family.name, level) for family in settings.families for level in family.levels]


@lru_cache(maxsize=4)
def held_out(settings: SuiteSettings) -> HoldOut:
    """The container of item keys that may never be trained on; the same in every process."""
    return hold_out(_families(settings), cells(settings), settings.seed, settings.held_out_share)


def first_suites(settings: SuiteSettings) -> dict[Pool, Suite]:
    """The suites of the first run."""
    return build_pools(_families(settings), cells(settings), _sizes(settings), held_out(settings))


def next_confirm(settings: SuiteSettings, version: int) -> Suite:
    """The confirm suite of a later version, with items that no earlier one had."""
    return rotated_confirm(_families(settings), cells(settings), _sizes(settings), held_out(settings), version)


def _families(settings: SuiteSettings) -> dict[str, TaskFamily]:
    return {family.name: registry.get(family.name) for family in settings.families}


def _sizes(settings: SuiteSettings) -> dict[Pool, int]:
    return {"probe": settings.probe_items, "eval": settings.eval_items, "confirm": settings.confirm_items}

"""Which items are held out: decided by a hash of the item's key, so that every process knows it without a list.

A held-out item is in no training data, whether a suite uses it or not. So a pool can be rotated to fresh items years
later, and none of them was ever trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict, Field

from ratchet.errors import DataError
from ratchet.tasks.family import TaskFamily
from ratchet.tasks.graders import TEXT_KEY
from ratchet.tasks.judge import subject_key

Cell = tuple[str, int]
"""A family's name and a level."""

ENUMERABLE = 2_000
"""Levels of at most so many items are counted out, so that the share is a limit and not an average."""

_SEEDS_AN_ITEM = 12
"""Seeds tried for each item of a small level: an item does not turn up with a chance of e^-12."""


class HoldOut(BaseModel):
    """A container of item keys: ``key in hold_out``. The hash speaks for items of families, ``keys`` for free text.

    A judgement on an answer is held out with the problem that it asks about.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(ge=0)
    share: float = Field(gt=0, le=0.5)
    released: frozenset[str] = frozenset()
    """Items of small levels that the hash holds out beyond the share; they are trained on."""
    keys: frozenset[str] = frozenset()
    """Items of free text that a suite uses."""

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        if key.startswith(TEXT_KEY):
            return key in self.keys
        item = subject_key(key)
        return self.lot(item) < self.share and item not in self.released

    def lot(self, key: str) -> float:
        """A number from 0 to 1 that the key draws; those that draw less than the share are held out."""
        digest = hashlib.blake2b(key.encode(), digest_size=8, salt=self.seed.to_bytes(16, "big")).digest()
        return int.from_bytes(digest, "big") / 2.0**64

    def with_keys(self, keys: Iterable[str]) -> HoldOut:
        """As this, with more items of free text held out."""
        texts = frozenset(key for key in keys if key.startswith(TEXT_KEY))
        return self.model_copy(update={"keys": self.keys | texts})


def hold_out(families: Mapping[str, TaskFamily], cells: Iterable[Cell], seed: int, share: float = 0.2) -> HoldOut:
    """The hold-out of these levels: the share of every level, and of a small one not an item more."""
    plain = HoldOut(seed=seed, share=share)
    released: set[str] = set()
    for name, level in cells:
        family = families.get(name)
        if family is None or level not in family.levels:
            raise DataError(f"{name} has no level {level}; a suite cannot hold out items of it.")
        capacity = family.capacity(level)
        if capacity is not None and capacity <= ENUMERABLE:
            keys = {family.generate(level, seed).key for seed in range(capacity * _SEEDS_AN_ITEM)}
            held = sorted((key for key in keys if key in plain), key=plain.lot)
            released.update(held[quota(capacity, share) :])
    return plain.model_copy(update={"released": frozenset(released)})


def quota(capacity: int, share: float) -> int:
    """The most items that may be held out of a level of so many."""
    return int(capacity * share)

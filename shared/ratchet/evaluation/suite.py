"""A suite is the fixed, held-out items of one pool, identified by their content. HoldOut decides what is held out.

A hash of an item's key decides whether it is held out, so that every process can compute it without a list. A held-out
item is in no training data, even if no suite uses it. So a pool can be rotated to new items years later, and none of
them has ever been trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ratchet.data.example import Example
from ratchet.errors import DataError
from ratchet.tasks.family import TaskFamily
from ratchet.tasks.graders import TEXT_KEY, item_key
from ratchet.tasks.judge import subject_key

Pool = Literal["probe", "eval", "confirm"]
POOLS: tuple[Pool, ...] = ("probe", "eval", "confirm")
"""The pools, all of held-out items."""

Cell = tuple[str, int]
"""A family's name and a level."""

ENUMERABLE = 2_000
"""Levels of at most this many items are enumerated, so that the share is a limit and not an average."""

_SEEDS_PER_ITEM = 12
"""Seeds tried per item of a small level; an item is missed with a probability of e^-12."""


class Suite(BaseModel):
    """Items of one pool. ``version`` counts the pool's draws from 0. Each item occurs once and has its key."""

    model_config = ConfigDict(frozen=True)

    pool: Pool
    version: int = Field(ge=0)
    items: tuple[Example, ...] = Field(min_length=1)

    @classmethod
    def of(cls, pool: Pool, items: Iterable[Example], version: int = 0) -> Suite:
        """A suite of these items. Raises DataError if two of them ask the same."""
        with_keys = tuple(keyed(item) for item in items)
        seen: set[str] = set()
        for item in with_keys:
            if item.metadata["key"] in seen:
                raise DataError(f"{pool}: {item.metadata['key']} occurs twice; a suite has each item only once.")
            seen.add(item.metadata["key"])
        return cls(pool=pool, version=version, items=with_keys)

    @cached_property
    def id(self) -> str:
        """32 hex digits of the sha256 over pool, version and items."""
        head = json.dumps([self.pool, self.version])
        return hashlib.sha256("\n".join([head, *self.to_lines()]).encode()).hexdigest()[:32]

    @cached_property
    def keys(self) -> frozenset[str]:
        """Keys of the items, to determine what is held out."""
        return frozenset(str(item.metadata["key"]) for item in self.items)

    @cached_property
    def by_id(self) -> dict[str, Example]:
        """The items by the ``item_id`` of their records."""
        return {item.id: item for item in self.items}

    def to_lines(self) -> list[str]:
        """One line per item, as plain examples."""
        return [item.to_line() for item in self.items]

    @classmethod
    def from_lines(cls, pool: Pool, lines: Iterable[str], version: int = 0) -> Suite:
        """The inverse of to_lines. Raises DataError, naming the line."""
        items = []
        for number, line in enumerate(lines, start=1):
            try:
                items.append(Example.model_validate_json(line))
            except ValidationError as error:
                raise DataError(f"{pool} suite, line {number}: {error.errors()[0]['msg']}.") from error
        return cls.of(pool, items, version)


def keyed(item: Example) -> Example:
    """The item with its key in ``metadata``, replacing any field of that name from the item's source."""
    return item.model_copy(update={"metadata": {**item.metadata, "key": item_key(item)}})


class HoldOut(BaseModel):
    """The held-out item keys: ``key in hold_out``. A hash decides for items of families, ``keys`` for free text.

    A judgement on an answer is held out exactly if its problem is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(ge=0)
    share: float = Field(gt=0, le=0.5)
    released: frozenset[str] = frozenset()
    """Items of small levels that the hash selects beyond the share; they may be trained on."""
    keys: frozenset[str] = frozenset()
    """Items of free text that a suite uses."""

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        if key.startswith(TEXT_KEY):
            return key in self.keys
        item = subject_key(key)
        return self.unit_hash(item) < self.share and item not in self.released

    def unit_hash(self, key: str) -> float:
        """The key's hash as a number from 0 to 1; keys below the share are held out."""
        digest = hashlib.blake2b(key.encode(), digest_size=8, salt=self.seed.to_bytes(16, "big")).digest()
        return int.from_bytes(digest, "big") / 2.0**64

    def with_keys(self, keys: Iterable[str]) -> HoldOut:
        """A copy with more items of free text held out."""
        texts = frozenset(key for key in keys if key.startswith(TEXT_KEY))
        return self.model_copy(update={"keys": self.keys | texts})


def hold_out(families: Mapping[str, TaskFamily], cells: Iterable[Cell], seed: int, share: float = 0.2) -> HoldOut:
    """The hold-out of these levels: about the share of every level, and never more than that of a small one."""
    plain = HoldOut(seed=seed, share=share)
    released: set[str] = set()
    for name, level in cells:
        family = families.get(name)
        if family is None or level not in family.levels:
            raise DataError(f"{name} has no level {level}; a suite cannot hold out items of it.")
        capacity = family.capacity(level)
        if capacity is not None and capacity <= ENUMERABLE:
            keys = {family.generate(level, seed).key for seed in range(capacity * _SEEDS_PER_ITEM)}
            held = sorted((key for key in keys if key in plain), key=plain.unit_hash)
            released.update(held[quota(capacity, share) :])
    return plain.model_copy(update={"released": frozenset(released)})


def quota(capacity: int, share: float) -> int:
    """The maximum number of held-out items of a level with ``capacity`` items."""
    return int(capacity * share)

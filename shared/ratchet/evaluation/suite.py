"""A suite: the fixed, held-out items of one pool, identified by their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ratchet.data.example import Example
from ratchet.errors import DataError
from ratchet.tasks.graders import item_key

Pool = Literal["probe", "eval", "confirm"]
POOLS: tuple[Pool, ...] = ("probe", "eval", "confirm")
"""Pools that are drawn from what is held out."""


class Suite(BaseModel):
    """Items of one pool. ``version`` counts the pool's draws from 0; each item is there once and carries its key."""

    model_config = ConfigDict(frozen=True)

    pool: Pool
    version: int = Field(ge=0)
    items: tuple[Example, ...] = Field(min_length=1)

    @classmethod
    def of(cls, pool: Pool, items: Iterable[Example], version: int = 0) -> Suite:
        """A suite of these items. Raises DataError where two ask the same."""
        keyed = tuple(_keyed(item) for item in items)
        seen: set[str] = set()
        for item in keyed:
            if item.metadata["key"] in seen:
                raise DataError(f"{pool}: {item.metadata['key']} is there twice; a suite holds each item once.")
            seen.add(item.metadata["key"])
        return cls(pool=pool, version=version, items=keyed)

    @cached_property
    def id(self) -> str:
        """32 hex digits of the sha256 over pool, version and items."""
        head = json.dumps([self.pool, self.version])
        return hashlib.sha256("\n".join([head, *self.to_lines()]).encode()).hexdigest()[:32]

    @cached_property
    def keys(self) -> frozenset[str]:
        """Keys of the items, for telling what is held out."""
        return frozenset(str(item.metadata["key"]) for item in self.items)

    @cached_property
    def by_id(self) -> dict[str, Example]:
        """The items by the ``item_id`` of their records."""
        return {item.id: item for item in self.items}

    def to_lines(self) -> list[str]:
        """One item a line, as plain examples."""
        return [item.to_line() for item in self.items]

    @classmethod
    def from_lines(cls, pool: Pool, lines: Iterable[str], version: int = 0) -> Suite:
        """The inverse of to_lines. Raises DataError naming the line."""
        items = []
        for number, line in enumerate(lines, start=1):
            try:
                items.append(Example.model_validate_json(line))
            except ValidationError as error:
                raise DataError(f"{pool} suite, line {number}: {error.errors()[0]['msg']}.") from error
        return cls.of(pool, items, version)


def _keyed(item: Example) -> Example:
    """With its own key, whatever the source of the item called so."""
    return item.model_copy(update={"metadata": {**item.metadata, "key": item_key(item)}})

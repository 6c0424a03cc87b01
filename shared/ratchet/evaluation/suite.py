"""A suite: a versioned, fixed set of items of one pool."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ratchet.artifacts import ArtifactStore
from ratchet.data.example import Example

Pool = Literal["probe", "eval", "confirm"]
POOLS: tuple[Pool, ...] = ("probe", "eval", "confirm")
ROWS = "rows.jsonl"


class Suite(BaseModel):
    """Items in a fixed order. ``id`` is the digest of their content: the same items are the same version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pool: Pool
    items: tuple[Example, ...]

    @property
    def id(self) -> str:
        digest = hashlib.sha256("\n".join(item.id for item in self.items).encode()).hexdigest()
        return f"{self.pool}-{digest[:16]}"

    def lines(self) -> Iterable[str]:
        """The suite as JSONL, without line ends."""
        return (item.to_line() for item in self.items)


def read_items(artifacts: ArtifactStore, artifact_id: str) -> list[Example]:
    """The items of a published suite, in its order. Raises ArtifactError."""
    return [Example.model_validate_json(line) for line in artifacts.open_lines(artifact_id, ROWS)]

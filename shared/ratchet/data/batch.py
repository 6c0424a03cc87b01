"""A batch: an immutable JSONL artifact of examples, with where it came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict, Field

from ratchet.data.example import Example


class Provenance(BaseModel):
    """Where a batch came from. ``parents`` are ids of what it was made from (batches, evaluations, a file's sha256)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: str = Field(min_length=1)
    version: str
    seed: int | None = None
    parents: tuple[str, ...] = ()
    counts: dict[str, int] = Field(default_factory=dict)
    """Examples a level, under ``family/level``."""

    @property
    def examples(self) -> int:
        return sum(self.counts.values())


class Census:
    """Counts examples by family and level as they pass."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> dict[str, int]:
        return dict(sorted(self._counts.items()))

    def lines(self, examples: Iterable[Example]) -> Iterator[str]:
        """The examples as lines of JSON, counted."""
        for example in examples:
            self._counts[f"{example.family}/{example.level}"] += 1
            yield example.to_line()

"""Splits a task's rows into held-out ones, in three pools, and rows to train on.

Which rows are held out depends on the seed and the rows alone, not on their order. Rows that ask the same, or nearly
the same, are on one side: a row that is near a held-out one is neither trained nor tested on. Rows stream through
twice, so that memory grows with the held-out rows only.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ratchet.data.example import Example
from ratchet.data.near_duplicates import NearDuplicates, Sketch
from ratchet.errors import DataError
from ratchet.evaluation.suite import POOLS, Pool
from ratchet.tasks.graders import grade_example, text_key

MOST_HELD_OUT = 6_000
"""Most rows of a task that are held out, over all pools; more would prove hardly more and cost every checkpoint."""

Sizes = Mapping[Pool, int]


Side = Literal["held_out", "near", "training"]
"""Where a row belongs; ``near`` is one that is nearly a held-out row, and is neither trained nor tested on."""


@dataclass(frozen=True)
class Split:
    """The held-out rows by pool, and counts. ``rows`` counts distinct questions, ``repeated`` the other rows."""

    held_out: dict[Pool, list[Example]]
    rows: int
    repeated: int
    _keys: frozenset[str] = frozenset()
    _texts: NearDuplicates = field(default_factory=NearDuplicates)

    @property
    def held_rows(self) -> int:
        return sum(len(items) for items in self.held_out.values())

    def side(self, row: Example) -> Side:
        if text_key(row) in self._keys:
            return "held_out"
        return "near" if self._texts.is_leak(Sketch.of(prompt_text(row))) else "training"

    def training_rows(self, rows: Iterable[Example]) -> Iterator[Example]:
        return (row for row in rows if self.side(row) == "training")


def split_rows(
    rows: Iterable[Example],
    sizes: Callable[[int], Sizes],
    seed: int,
    *,
    held_before: Mapping[Pool, Sequence[Example]] | None = None,
    trained_before: frozenset[str] = frozenset(),
    rows_before: int = 0,
) -> Split:
    """Choose the held-out rows. ``sizes`` gives the size of each pool for a number of distinct rows.

    For a task that has rows already, ``held_before`` stay held out, rows with the keys ``trained_before`` never become
    so, and ``rows_before`` distinct ones count towards the sizes. Raises DataError where a pool would be empty.
    """
    before = {pool: list((held_before or {}).get(pool, ())) for pool in POOLS}
    kept = {text_key(item) for items in before.values() for item in items}
    candidates, new, repeated = _candidates(rows, seed, trained_before | kept)
    wanted = sizes(rows_before + new)
    texts = NearDuplicates(prompt_text(item) for items in before.values() for item in items)
    drawn = _drawn(candidates, sum(max(0, wanted[pool] - len(before[pool])) for pool in POOLS), texts)
    for pool in POOLS:
        missing = max(0, wanted[pool] - len(before[pool]))
        before[pool] += drawn[:missing]
        drawn = drawn[missing:]
        if not before[pool]:
            raise DataError(
                f"{rows_before + new} different rows are too few: each of the pools {', '.join(POOLS)} needs a row of "
                "its own that its grader accepts, and the others are trained on. Add rows."
            )
    held = frozenset(text_key(item) for items in before.values() for item in items)
    everything = NearDuplicates(prompt_text(item) for items in before.values() for item in items)
    return Split(before, rows_before + new, repeated, _keys=held, _texts=everything)


def prompt_text(row: Example) -> str:
    """The text by which a row is near another one."""
    return "\n".join(message.content for message in row.prompt)


def _candidates(
    rows: Iterable[Example], seed: int, excluded: frozenset[str] | set[str]
) -> tuple[list[Example], int, int]:
    """The rows of the smallest hashes, in their order; the number of distinct new rows, and of repeated ones."""
    seen: set[bytes] = set()
    smallest: list[tuple[float, int, Example]] = []  # a heap, the largest hash first
    new = repeated = 0
    for number, row in enumerate(rows):
        key = text_key(row)
        digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
        if digest in seen or key in excluded:
            repeated += 1
            continue
        seen.add(digest)
        new += 1
        place = _unit_hash(key, seed)
        if len(smallest) < MOST_HELD_OUT:
            heapq.heappush(smallest, (-place, number, row))
        elif place < -smallest[0][0]:
            heapq.heapreplace(smallest, (-place, number, row))
    return [row for _, _, row in sorted(smallest, key=lambda one: -one[0])], new, repeated


def _drawn(candidates: Iterable[Example], count: int, texts: NearDuplicates) -> list[Example]:
    """The first ``count`` candidates that can be graded and are not near another held-out row."""
    drawn: list[Example] = []
    for row in candidates:
        if len(drawn) == count:
            break
        sketch = Sketch.of(prompt_text(row))
        if _can_be_judged(row) and not texts.is_leak(sketch) and not texts.is_repeat(sketch):
            texts.remember(sketch)
            drawn.append(row)
    return drawn


def _can_be_judged(row: Example) -> bool:
    if not row.answer or not row.answer.strip():
        return False
    try:
        return row.metadata.get("metric", "accuracy") != "accuracy" or grade_example(row, row.answer).correct
    except DataError:
        return False


def _unit_hash(key: str, seed: int) -> float:
    digest = hashlib.blake2b(key.encode(), digest_size=8, salt=seed.to_bytes(16, "big")).digest()
    return int.from_bytes(digest, "big") / 2.0**64

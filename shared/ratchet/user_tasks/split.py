"""Splits a task's rows into held-out ones, in three pools, and rows to train on.

Which rows are held out depends on the seed and the rows alone, not on their order. Rows that ask the same, or nearly
the same, are on one side: a row that is near a held-out one is neither trained nor tested on, and one that nearly
repeats what a task trains on already is never held out. Rows stream through twice; memory grows with the held-out rows,
and with the keys of the others.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ratchet.data.example import Example
from ratchet.data.near_duplicates import NearDuplicates, common_runs
from ratchet.errors import DataError
from ratchet.evaluation.record import GENERAL
from ratchet.evaluation.suite import POOLS, Pool
from ratchet.tasks.graders import grade_example, text_key
from ratchet.user_tasks.known_rows import Owned, near_given

MOST_HELD_OUT = 6_000
"""Most rows of a task that are held out, over all pools; more would prove hardly more and cost every checkpoint."""

Sizes = Mapping[Pool, int]


Side = Literal["held_out", "near", "training"]
"""Where a row belongs; ``near`` is one that is nearly a held-out row, and is neither trained nor tested on."""


@dataclass(frozen=True)
class Split:
    """The held-out rows by pool, and counts. ``rows`` counts distinct questions that no other task has, ``repeated``
    the other rows of the task.

    ``known`` counts rows that are not held out since a task has them already, the same or, of the rows that could have
    been held out, nearly the same.
    """

    held_out: dict[Pool, list[Example]]
    rows: int
    repeated: int
    known: Counter[str] = field(default_factory=Counter)
    _keys: frozenset[str] = frozenset()
    _texts: NearDuplicates = field(default_factory=NearDuplicates)

    @property
    def held_rows(self) -> int:
        return sum(len(items) for items in self.held_out.values())

    def side(self, row: Example) -> Side:
        if text_key(row) in self._keys:
            return "held_out"
        return "near" if self._texts.is_leak(self._texts.sketch(row.prompt_text)) else "training"

    def training_rows(self, rows: Iterable[Example]) -> Iterator[Example]:
        return (row for row in rows if self.side(row) == "training")


def split_rows(
    rows: Iterable[Example],
    sizes: Callable[[int], Sizes],
    seed: int,
    *,
    held_before: Mapping[Pool, Sequence[Example]] | None = None,
    taken: Mapping[str, str] | None = None,
    trained_before: Iterable[Owned] = (),
    rows_before: int = 0,
) -> Split:
    """Choose the held-out rows. ``sizes`` gives the size of each pool for a number of distinct rows.

    ``taken`` names the task that has a row with this key already, and ``trained_before`` are the rows that tasks have
    been given to train on: none of these, nor one that nearly repeats it, becomes held out. For a task that has rows
    already, ``held_before`` stay held out, and ``rows_before`` distinct ones count towards the sizes. Raises DataError
    where a pool would be empty.
    """
    before = {pool: list((held_before or {}).get(pool, ())) for pool in POOLS}
    kept = {text_key(item) for items in before.values() for item in items}
    candidates, counts = _candidates(rows, seed, kept, taken or {})
    near = near_given(candidates, trained_before)
    counts.known.update(near.values())
    left = [row for place, row in enumerate(candidates) if place not in near]
    fresh = round(counts.new * len(left) / len(candidates)) if near else counts.new
    wanted = sizes(rows_before + fresh)
    asked = [item.prompt_text for items in before.values() for item in items]
    common = common_runs(asked) | common_runs(row.prompt_text for row in candidates)
    drawn = _drawn(
        left, sum(max(0, wanted[pool] - len(before[pool])) for pool in POOLS), NearDuplicates(asked, common=common)
    )
    for pool in POOLS:
        missing = max(0, wanted[pool] - len(before[pool]))
        before[pool] += drawn[:missing]
        drawn = drawn[missing:]
        if not before[pool]:
            raise DataError(_too_few(rows_before + counts.new, counts.known))
    held = frozenset(text_key(item) for items in before.values() for item in items)
    everything = NearDuplicates((item.prompt_text for items in before.values() for item in items), common=common)
    return Split(before, rows_before + counts.new, counts.repeated, counts.known, held, everything)


def _too_few(rows: int, known: Counter[str]) -> str:
    of_users = [(task, count) for task, count in known.most_common() if task != GENERAL]
    if not of_users:
        return (
            f"{rows} different rows are too few: each of the pools {', '.join(POOLS)} needs a row of its own that its "
            "grader accepts, and the others are trained on. Add rows."
        )
    task, count = of_users[0]
    return (
        f"the task {task} has {count:,} of these rows already, the same or nearly the same, and too few others are "
        f"left to be held out: give rows that {task} does not have, or let `ratchet data set {task}` change how it is "
        "judged."
    )


@dataclass
class _Counts:
    """Distinct new rows, repeated ones, and those that another task has, by task."""

    new: int = 0
    repeated: int = 0
    known: Counter[str] = field(default_factory=Counter)


def _candidates(
    rows: Iterable[Example], seed: int, kept: Container[str], taken: Mapping[str, str]
) -> tuple[list[Example], _Counts]:
    """The new rows of the smallest hashes, in their order."""
    seen: set[bytes] = set()
    smallest: list[tuple[float, int, Example]] = []  # a heap, the largest hash first
    counts = _Counts()
    for number, row in enumerate(rows):
        key = text_key(row)
        digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
        owner = taken.get(key)
        if digest in seen or key in kept or (owner is not None and owner == row.family):
            counts.repeated += 1
            continue
        seen.add(digest)
        if owner is not None:
            counts.known[owner] += 1
            continue
        counts.new += 1
        place = _unit_hash(key, seed)
        if len(smallest) < MOST_HELD_OUT:
            heapq.heappush(smallest, (-place, number, row))
        elif place < -smallest[0][0]:
            heapq.heapreplace(smallest, (-place, number, row))
    return [row for _, _, row in sorted(smallest, key=lambda one: -one[0])], counts


def _drawn(candidates: Iterable[Example], count: int, texts: NearDuplicates) -> list[Example]:
    """The first ``count`` candidates that can be graded and are not near another held-out row."""
    drawn: list[Example] = []
    for row in candidates:
        if len(drawn) == count:
            break
        sketch = texts.sketch(row.prompt_text)
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

"""Adversarial mining: the answers that show a weakness, by exact categories.

- ``forgotten``: wrong, although an earlier champion answered the very item right.
- ``overconfident_wrong``: wrong, although the mean token probability is at least ``sure``.
- ``wrong``: wrong, and less sure than that.
- ``unstable``: a variant of an item is answered wrong, while the item itself is answered right.
- ``low_margin``: right, but the least certain token had a probability below ``unsure``.

A wrong variant is ``unstable`` however sure it was. Otherwise an answer stands in the first category that fits.
Only the probe pool and items that no pool holds are mined.

An item of low margin is failed by the next checkpoint more often than one that was right and sure, and less often than
a random one of its level (``benchmarks/mining``). So such items stand behind all that were wrong, have a tenth of a
set's places at most, and are no reason to search on where they were found.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict
from ratchet.data.example import Example

from miner.answered import Answered

Category = Literal["forgotten", "overconfident_wrong", "wrong", "unstable", "low_margin"]
LOW_MARGIN_SHARE = 0.1
"""Most of a set's places that right answers may have."""

PROBE = "probe"
"""The way of an item that came from the probe record; the search has other ways."""


class Limits(BaseModel):
    """Mean token probability of a sure answer, and least token probability of an unsure one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sure: float = 0.9
    unsure: float = 0.5


class MinedItem(BaseModel):
    """One weak item. ``weakness`` orders items: the larger, the more there is to learn.

    ``way`` is how it was found: in the probe record, or by which move of the search (``fresh``, ``near``, or a kind of
    variant); ``parent`` is the key of the item that it is a relative or a variant of. ``error`` is the error class,
    None for an answer that was right but shaky.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    example: Example
    key: str
    category: Category
    answer: str
    weakness: float
    error: str | None = None
    way: str = PROBE
    parent: str | None = None

    @property
    def cell(self) -> tuple[str, int]:
        return self.example.family or "text", self.example.level

    @property
    def is_right(self) -> bool:
        """Whether the answer was right, though shaky."""
        return self.category == "low_margin"


def categorise(
    answered: Answered, limits: Limits, *, was_right: bool = False, is_variant: bool = False
) -> Category | None:
    """The category of an answer, None where it shows no weakness.

    ``was_right`` says that an earlier champion had it right, ``is_variant`` that the item is a variant of one that
    this model has right.
    """
    if answered.is_right:
        return "low_margin" if answered.least_probability < limits.unsure else None
    if is_variant:
        return "unstable"
    if was_right:
        return "forgotten"
    return "overconfident_wrong" if answered.mean_probability >= limits.sure else "wrong"


def mined_item(
    answered: Answered, category: Category, times_mined: int = 0, way: str = PROBE, parent: str | None = None
) -> MinedItem:
    """The item with its weakness, which shrinks with every earlier set that held it."""
    return MinedItem(
        example=answered.example,
        key=answered.key,
        category=category,
        answer=answered.answer,
        weakness=_weakness(answered, category) / (1 + times_mined),
        error=answered.error,
        way=way,
        parent=parent,
    )


def mine(
    answers: Iterable[Answered], limits: Limits, times_mined: Mapping[str, int], was_right: Container[str] = frozenset()
) -> list[MinedItem]:
    """The weak ones among the answers to a probe, the weakest first.

    ``times_mined`` counts how often a key was mined from earlier checkpoints: what was mined before comes after what
    is new at the same frontier, so that one stubborn item does not fill every set. ``was_right`` holds the keys that
    an earlier champion answered right.
    """
    found = [
        mined_item(answered, category, times_mined.get(answered.key, 0))
        for answered in answers
        if (category := categorise(answered, limits, was_right=answered.key in was_right)) is not None
    ]
    return weakest_first(found)


def weakest_first(found: Iterable[MinedItem]) -> list[MinedItem]:
    """Each key once, the weakest in front; equal ones by key."""
    best: dict[str, MinedItem] = {}
    for item in sorted(found, key=lambda item: (-item.weakness, item.key)):
        best.setdefault(item.key, item)
    return list(best.values())


def chosen(found: Iterable[MinedItem], places: int) -> list[MinedItem]:
    """A set of so many items at most: the weakest wrong ones, then those of low margin where places are left."""
    ranked = weakest_first(found)
    wrong = [item for item in ranked if not item.is_right][:places]
    shaky = [item for item in ranked if item.is_right][: int(LOW_MARGIN_SHARE * places)]
    return [*wrong, *shaky][:places]


def counts(mined: Iterable[MinedItem]) -> dict[str, int]:
    """Items by category."""
    return dict(Counter(item.category for item in mined))


def near_frontier(mined: Iterable[MinedItem], rates: Mapping[tuple[str, int], float], lowest: float) -> list[MinedItem]:
    """Mined items of the levels that the checkpoint answers at this rate or better.

    Below it there is nothing yet that one lesson could put right. Forgotten items are kept wherever they are.
    """
    return [item for item in mined if item.category == "forgotten" or rates.get(item.cell, 0.0) >= lowest]


def _weakness(answered: Answered, category: Category) -> float:
    """Shaky answers from 0 to 1, wrong ones from 1 to 2 (the less likely what is right, the weaker), forgotten above.

    How sure the wrong answer was says less: at the next checkpoint the surer ones are right more often
    (``benchmarks/mining``). One whose right answer was not scored stands last among its like.
    """
    if category == "low_margin":
        return 1.0 - answered.least_probability
    unlikely = 0.0 if answered.gold_nll is None else 1.0 - math.exp(-answered.gold_nll)
    return (2.0 if category == "forgotten" else 1.0) + unlikely

"""Adversarial mining: the probe items that a checkpoint is weak on, by exact categories.

- ``wrong``: the grader says no, and the mean token probability is below ``SURE``.
- ``overconfident_wrong``: the grader says no although the mean token probability is at least ``SURE``.
- ``low_margin``: right, but the least certain token had a probability below ``UNSURE``.

An item stands in the first of overconfident_wrong, wrong, low_margin that fits. Only the probe pool is mined.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict
from ratchet.data.example import Example
from ratchet.evaluation.record import Evaluation, ItemRecord

Category = Literal["wrong", "overconfident_wrong", "low_margin"]
SURE = 0.9
UNSURE = 0.5
FRONTIER = 0.2
"""Success rate from which a level is in reach: below it there is nothing yet that one lesson could put right."""


class MinedItem(BaseModel):
    """One weak item. ``weakness`` orders items: the larger, the more there is to learn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    example: Example
    key: str
    category: Category
    answer: str
    weakness: float


def mine(
    evaluation: Evaluation, items: Iterable[Example], times_mined: Mapping[str, int], budget: int
) -> list[MinedItem]:
    """The weakest items of a probe record, at most ``budget``.

    ``times_mined`` counts how often a key was mined from earlier checkpoints: what was mined before comes after what
    is new at the same frontier, so that one stubborn item does not fill every set.
    """
    by_id = {item.id: item for item in items}
    found = [
        MinedItem(
            example=by_id[record.item_id],
            key=record.key,
            category=category,
            answer=record.answer,
            weakness=_weakness(record, category) / (1 + times_mined.get(record.key, 0)),
        )
        for record in evaluation.items
        if (category := categorise(record)) is not None
    ]
    return sorted(found, key=lambda item: (-item.weakness, item.key))[:budget]


def categorise(record: ItemRecord) -> Category | None:
    """The category of a record, None where it shows no weakness."""
    if not record.correct:
        return "overconfident_wrong" if _mean_probability(record) >= SURE else "wrong"
    return "low_margin" if _least_probability(record) < UNSURE else None


def counts(mined: Iterable[MinedItem]) -> dict[str, int]:
    """Items by category."""
    return dict(Counter(item.category for item in mined))


def near_frontier(mined: Iterable[MinedItem], rates: Mapping[tuple[str, int], float]) -> list[MinedItem]:
    """Mined items of the levels that the checkpoint answers at the rate FRONTIER or better."""
    return [item for item in mined if rates.get((item.example.family or "", item.example.level), 0.0) >= FRONTIER]


def _weakness(record: ItemRecord, category: Category) -> float:
    if category == "low_margin":
        return 1.0 - _least_probability(record)
    return 1.0 + _mean_probability(record)


def _mean_probability(record: ItemRecord) -> float:
    """exp of the mean token log-probability: the geometric mean of the token probabilities."""
    logprobs = record.token_logprobs
    return math.exp(sum(logprobs) / len(logprobs)) if logprobs else 0.0


def _least_probability(record: ItemRecord) -> float:
    return math.exp(min(record.token_logprobs)) if record.token_logprobs else 0.0

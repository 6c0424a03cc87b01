"""The per-item record of an evaluation, and statistics of it: rates by level, mastered levels, and the two splits.

Testing stores one record per checkpoint and suite; every judge reads it. A record's key has the conditions under which
it was made, and only records made under the same conditions are compared.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ratchet.errors import EmptyEvaluation, NotComparable

Extraction = Literal["ok", "missing", "truncated"]
LevelRates = dict[tuple[str, int], "Rate"]
ByLevel = dict[str, dict[str, list[int]]]
MasteredLevels = dict[str, frozenset[int]]


class ItemRecord(BaseModel):
    """How one checkpoint answered one item of one suite.

    ``token_logprobs`` are natural-log probabilities of the generated tokens, in order (with the end token, if it was
    generated); ``token_ids`` are those tokens, if the engine returns them. ``correct`` is the grader's result.
    ``extraction`` is ``missing`` if no answer could be read from the text, ``truncated`` if the text reached the token
    limit. ``gold_nll`` is the mean negative log-probability, in nats per token, of the right answer in its training
    format; None if it was not computed, or there is no right answer that fits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: str
    key: str
    family: str
    level: int
    answer: str
    extracted: str | None
    extraction: Extraction
    correct: bool
    token_logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]
    latency_s: float
    token_ids: tuple[int, ...] = ()
    gold_nll: float | None = None


class RecordKey(BaseModel):
    """Everything that a record depends on. Two records are compared only if all but ``weights`` are equal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str
    suite: str
    grader: str
    decoding: str
    dtype: str
    engine: str
    gpu_class: str

    @property
    def id(self) -> str:
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:32]

    def conditions(self) -> dict[str, str]:
        """Everything but the weights."""
        return self.model_dump(exclude={"weights"})

    def require_comparable(self, other: RecordKey) -> None:
        """Raise NotComparable, naming each differing field, unless only the weights differ."""
        mine, theirs = self.conditions(), other.conditions()
        differing = [f"{k}: {mine[k]} != {theirs[k]}" for k in mine if mine[k] != theirs[k]]
        if differing:
            raise NotComparable(
                "records differ in " + "; ".join(differing) + ". Evaluate both again under the same conditions."
            )


class Evaluation(BaseModel):
    """A record key with the records of all items, in the suite's order."""

    model_config = ConfigDict(frozen=True)

    checkpoint_id: str
    key: RecordKey
    items: tuple[ItemRecord, ...]


def paired(a: Evaluation, b: Evaluation) -> list[tuple[ItemRecord, ItemRecord]]:
    """Items of both evaluations, matched by item id, in the order of ``a``.

    Raises NotComparable if the conditions or the items differ.
    """
    a.key.require_comparable(b.key)
    other = {item.item_id: item for item in b.items}
    if other.keys() != {item.item_id for item in a.items}:
        raise NotComparable(f"{a.checkpoint_id} and {b.checkpoint_id} answered different items of one suite.")
    return [(item, other[item.item_id]) for item in a.items]


def records_to_lines(items: Iterable[ItemRecord]) -> str:
    """Records as JSONL text."""
    return "".join(item.model_dump_json() + "\n" for item in items)


def records_from_lines(lines: Iterable[str]) -> tuple[ItemRecord, ...]:
    """The inverse of records_to_lines."""
    return tuple(ItemRecord.model_validate_json(line) for line in lines if line.strip())


class Rate(BaseModel):
    """A success rate: ``correct`` of ``n`` items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    correct: int
    n: int

    @property
    def value(self) -> float:
        return self.correct / self.n


def level_rates(items: Iterable[ItemRecord]) -> LevelRates:
    """The rate of each (family, level) that has items."""
    counts: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for item in items:
        counts[item.family, item.level][0] += item.correct
        counts[item.family, item.level][1] += 1
    return {cell: Rate(correct=correct, n=n) for cell, (correct, n) in sorted(counts.items())}


def rates_to_json(rates: LevelRates) -> ByLevel:
    """Rates as stored in the ledger, ``{family: {level: [correct, n]}}``; levels are strings, as JSON keys must be."""
    by_level: ByLevel = {}
    for (family, level), rate in sorted(rates.items()):
        by_level.setdefault(family, {})[str(level)] = [rate.correct, rate.n]
    return by_level


def rates_from_json(by_level: Mapping[str, Mapping[str, Sequence[int]]]) -> LevelRates:
    """The inverse of rates_to_json."""
    return {
        (family, int(level)): Rate(correct=counts[0], n=counts[1])
        for family, levels in by_level.items()
        for level, counts in levels.items()
    }


def mastered_levels(evaluation: Evaluation, threshold: float, min_items: int) -> MasteredLevels:
    """The levels with a rate of at least ``threshold`` on at least ``min_items`` items, by family.

    For the gate it must be computed from the champion's *eval* record. From the confirm record, on which the gate then
    tests, it would select levels where the champion was lucky, and an equal challenger would look worse on them.
    """
    mastered: dict[str, set[int]] = {}
    for (family, level), rate in level_rates(evaluation.items).items():
        if rate.n >= min_items and rate.value >= threshold:
            mastered.setdefault(family, set()).add(level)
    return {family: frozenset(levels) for family, levels in mastered.items()}


def in_selection_split(item_id: str) -> bool:
    """Whether an item belongs to the half for selecting checkpoints: one bit of its id's hash.

    Code that selects a checkpoint by its score (the best so far, the next candidate) uses the selection split. Code
    that then tests whether a checkpoint is worse than the selected one, or how good a fitted number is, uses the test
    split, since selecting and testing on the same items is biased (the winner's curse).
    """
    return hashlib.sha256(b"half:" + item_id.encode()).digest()[0] % 2 == 0


def in_test_split(item_id: str) -> bool:
    """Whether an item belongs to the other half."""
    return not in_selection_split(item_id)


def selection_score(evaluation: Evaluation) -> float:
    """Success rate on the selection split, by which the best checkpoint and the next candidate are selected."""
    grades = [item.correct for item in evaluation.items if in_selection_split(item.item_id)]
    if not grades:
        raise EmptyEvaluation(f"{evaluation.checkpoint_id} has no graded items in the selection split.")
    return sum(grades) / len(grades)

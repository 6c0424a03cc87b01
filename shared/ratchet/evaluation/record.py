"""The per-item record of an evaluation, and what is read from it: rates by level, mastered levels, the two splits.

Testing stores one record a checkpoint and suite; every judge reads it. A record's key says under which conditions it
was made, and only records made under the same conditions are compared.
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

    ``token_logprobs`` are natural-log probabilities of the tokens that were generated, in order (the end token
    included where it was generated); ``token_ids`` are those tokens, where the engine tells them. ``correct`` is
    what the family's grader says. ``extraction`` says whether an answer could be read from the text at all
    (``missing``), or the text ran into the token limit (``truncated``). ``gold_nll`` is the mean negative
    log-probability, in nats a token, of the right answer as it is trained on; None where it was not asked for, or
    there is none that fits.
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
    """What a record depends on. Two records are compared only when all but ``weights`` are equal."""

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
            raise NotComparable("records differ in " + "; ".join(differing) + ". Evaluate both again alike.")


class Evaluation(BaseModel):
    """A key with the records of all items, in the suite's order."""

    model_config = ConfigDict(frozen=True)

    checkpoint_id: str
    key: RecordKey
    items: tuple[ItemRecord, ...]


def paired(a: Evaluation, b: Evaluation) -> list[tuple[ItemRecord, ItemRecord]]:
    """Items of both evaluations, matched by item id, in the order of ``a``.

    Raises NotComparable when conditions differ or when either has items that the other lacks.
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
    """``correct`` of ``n`` items."""

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
    """Rates as the ledger keeps them, ``{family: {level: [correct, n]}}``; a level is a string, as JSON keys are."""
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


def mastered_levels(evaluation: Evaluation, threshold: float, fewest_items: int) -> MasteredLevels:
    """Per family with at least one such level: the levels answered at ``threshold`` or better, on enough items.

    For the gate read it off the champion's *eval* record. Read off the confirm record that the gate then tests on,
    levels with a lucky champion would be picked, and an equal challenger would look worse on them.
    """
    mastered: dict[str, set[int]] = {}
    for (family, level), rate in level_rates(evaluation.items).items():
        if rate.n >= fewest_items and rate.value >= threshold:
            mastered.setdefault(family, set()).add(level)
    return {family: frozenset(levels) for family, levels in mastered.items()}


def in_selection_split(item_id: str) -> bool:
    """Whether an item belongs to the half that checkpoints are picked by: one bit of its id's hash, always the same.

    Whatever picks a checkpoint by its score (the best so far, the next candidate) reads the selection split. Whatever
    then asks whether a checkpoint is worse than the one so picked, or how good a fitted number is, reads the test
    split: picking and testing on the same items is the winner's curse.
    """
    return hashlib.sha256(b"half:" + item_id.encode()).digest()[0] % 2 == 0


def in_test_split(item_id: str) -> bool:
    """Whether an item belongs to the other half."""
    return not in_selection_split(item_id)


def selection_score(evaluation: Evaluation) -> float:
    """Success rate on the selection split: what the best so far, and the next candidate, are picked by."""
    grades = [item.correct for item in evaluation.items if in_selection_split(item.item_id)]
    if not grades:
        raise EmptyEvaluation(f"{evaluation.checkpoint_id} has no graded item in the selection split.")
    return sum(grades) / len(grades)

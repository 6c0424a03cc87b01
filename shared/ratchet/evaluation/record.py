"""The per-item record of an evaluation, and statistics of it: rates by level, mastered levels, and the two splits.

Testing stores one record per checkpoint and suite; every judge reads it. A record's key has the conditions under which
it was made, and only records made under the same conditions are compared.

Each item is measured by one metric: ``accuracy`` (the grader says right or wrong), ``loss`` (mean negative
log-likelihood of the reference answer, in nats per token), or ``judge`` (an LLM judge's preference for the model's
answer over the reference answer). Success rates are of the accuracy items alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ratchet.errors import EmptyEvaluation, NotComparable

Metric = Literal["accuracy", "loss", "judge"]
Extraction = Literal["ok", "missing", "truncated"]
LevelRates = dict[tuple[str, int], "Rate"]
ByLevel = dict[str, dict[str, list[int]]]
MasteredLevels = dict[str, frozenset[int]]

GENERAL = "general"
"""Family of the general prompts with the base model's own answers: protected, and never a reason to deploy."""


class ItemRecord(BaseModel):
    """How one checkpoint answered one item of one suite.

    ``token_logprobs`` are natural-log probabilities of the generated tokens, in order (with the end token, if it was
    generated); ``token_ids`` are those tokens, if the engine returns them. ``extraction`` is ``missing`` if no answer
    could be read from the text, ``truncated`` if the text reached the token limit. ``gold_nll`` is the mean negative
    log-probability, in nats per token, of the reference answer in its training format, over its ``gold_tokens`` tokens;
    None if it was not computed, or there is no reference answer that fits.

    ``correct`` is the grader's result, None unless the metric is accuracy; ``error`` is the class of a wrong answer
    (ratchet.tasks.error_classes). ``preference`` is the LLM judge's: 1 for the answer in both orders, 0 for the
    reference in both, 0.5 otherwise, None where there is no vote, for the reason in ``no_vote``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: str
    key: str
    family: str
    level: int
    answer: str
    extracted: str | None
    extraction: Extraction
    correct: bool | None
    token_logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]
    latency_s: float
    token_ids: tuple[int, ...] = ()
    gold_nll: float | None = None
    gold_tokens: int | None = None
    metric: Metric = "accuracy"
    error: str | None = None
    preference: float | None = None
    no_vote: str | None = None

    @property
    def score(self) -> float | None:
        """What is compared between checkpoints, by the metric; higher is better. None where it was not measured."""
        if self.metric == "accuracy":
            return None if self.correct is None else float(self.correct)
        if self.metric == "loss":
            return None if self.gold_nll is None else -self.gold_nll
        return self.preference

    @property
    def bounded_score(self) -> float | None:
        """The score as a number from 0 to 1, so that those of several metrics can be averaged.

        A loss becomes exp(-loss), the geometric mean of the probabilities of the reference answer's tokens.
        """
        score = self.score
        return math.exp(score) if score is not None and self.metric == "loss" else score


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
    """The rate of each (family, level) that has items of metric accuracy."""
    counts: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for item in items:
        if item.correct is not None:
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


def overall_rate(rates: LevelRates) -> Rate | None:
    """The rate over all graded items; None without any."""
    n = sum(rate.n for rate in rates.values())
    return Rate(correct=sum(rate.correct for rate in rates.values()), n=n) if n else None


class TaskScore(BaseModel):
    """The mean score of a task whose metric is loss or judge: nats per token, lower is better, or the share preferred.

    ``n`` items were measured, of ``items``. ``low`` and ``high`` are the mean's 95 % interval (normal).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: Metric
    items: int
    n: int
    mean: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """``1.61 nats/token`` or ``preferred 55 %``."""
        return f"{self.mean:.2f} nats/token" if self.metric == "loss" else f"preferred {100 * self.mean:.0f} %"

    @property
    def interval_text(self) -> str:
        """``1.482 to 1.731``, or ``49 to 100`` per cent: cut to what a loss or a share can be."""
        low, high = max(0.0, self.low), self.high
        return f"{low:.3f} to {high:.3f}" if self.metric == "loss" else f"{100 * low:.0f} to {100 * min(1.0, high):.0f}"


def task_scores(items: Iterable[ItemRecord]) -> dict[str, TaskScore]:
    """The mean loss or preference of each family with that metric, where at least one item was measured."""
    found: dict[str, list[ItemRecord]] = defaultdict(list)
    for item in items:
        if item.metric != "accuracy":
            found[item.family].append(item)
    scores = {family: _task_score(of_family) for family, of_family in sorted(found.items())}
    return {family: score for family, score in scores.items() if score is not None}


def _task_score(items: Sequence[ItemRecord]) -> TaskScore | None:
    metric = items[0].metric
    values = [item.gold_nll if metric == "loss" else item.preference for item in items]
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean = math.fsum(known) / len(known)
    variance = math.fsum((value - mean) ** 2 for value in known) / max(1, len(known) - 1)
    half = 1.96 * math.sqrt(variance / len(known))
    return TaskScore(metric=metric, items=len(items), n=len(known), mean=mean, low=mean - half, high=mean + half)


def scores_from_json(stored: Mapping[str, Mapping[str, Any]] | None) -> dict[str, TaskScore]:
    """Task scores as stored in the ledger, by family; none in records of earlier versions."""
    return {family: TaskScore.model_validate(score) for family, score in (stored or {}).items()}


def scores_in_words(stored: Mapping[str, Mapping[str, Any]] | None) -> list[str]:
    """Stored task scores, such as ``notes 1.61 nats/token`` and ``letters preferred 55 %``."""
    return [f"{family} {score.text}" for family, score in scores_from_json(stored).items()]


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
    """Mean bounded score on the selection split, by which the best checkpoint and the next candidate are selected.

    With graded items alone it is their success rate. Items of the general task do not count. A suite of so few items
    that none is in the split counts as a whole; where nothing was measured, as without a judge's votes, it is 0. Raises
    EmptyEvaluation without any item.
    """
    items = [item for item in evaluation.items if item.family != GENERAL] or list(evaluation.items)
    if not items:
        raise EmptyEvaluation(f"{evaluation.checkpoint_id} has no item to be selected by.")
    selected = [item for item in items if in_selection_split(item.item_id)] or items
    scores = [item.bounded_score for item in selected if item.bounded_score is not None]
    return math.fsum(scores) / len(scores) if scores else 0.0

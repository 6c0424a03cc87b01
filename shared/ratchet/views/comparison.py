"""Two checkpoints on the same items of a suite: what was gained and lost, item by item, and what the tests say of it.

Confirm suites are never compared here: a test set loses its value when its items are known.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import cached_property
from math import comb
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from ratchet.data.example import Example
from ratchet.errors import PreconditionFailed
from ratchet.evaluation.load_evaluation import load_suite, read_evaluation
from ratchet.evaluation.paired_outcomes import (
    OutcomeCounts,
    OutcomeTable,
    PairedScores,
    ScoreTable,
    outcome_table,
    score_table,
    total_of,
)
from ratchet.evaluation.record import ItemRecord, paired
from ratchet.ledger.suites import evaluation, suite_named
from ratchet.ledger.tables import CheckpointRow, EvaluationRow, SuiteRow
from ratchet.stats.paired_intervals import BOUNDS, difference_interval, mean_interval
from ratchet.stats.proportions import Interval
from ratchet.tasks.graders import gold
from ratchet.views.checkpoint_names import find_checkpoint, label
from ratchet.views.topics import Reader, Table, Topic
from ratchet.wording import shortened

WIDEST_CELL = 60

MOST_CACHED = 4
"""Comparisons in the cache. One of a thousand items with answers of a page each takes 4 MB."""


class PairedItem(NamedTuple):
    """An item with the answers of two checkpoints, without the probabilities of their tokens."""

    item: Example
    before: ItemRecord
    after: ItemRecord

    @property
    def gain(self) -> float:
        """The later score minus the earlier one; 0 where one was not measured."""
        before, after = self.before.score, self.after.score
        return 0.0 if before is None or after is None else after - before

    @property
    def text(self) -> str:
        """``gained``, ``lost``, or the change of the loss in nats or of the preference."""
        if self.before.metric == "accuracy":
            return "gained" if self.after.correct else "lost"
        change = -self.gain if self.before.metric == "loss" else self.gain
        return f"{change:+.2f}" + (" nats" if self.before.metric == "loss" else "")

    def values(self) -> dict[str, Any]:
        return {
            "item_id": self.item.id,
            "gained": self.gain > 0,
            "metric": self.before.metric,
            "scores": [self.before.score, self.after.score],
            "family": self.before.family,
            "level": self.before.level,
            "question": self.item.question,
            "gold": gold(self.item),
            "before": self.before.answer,
            "after": self.after.answer,
            "extraction": [self.before.extraction, self.after.extraction],
        }


@dataclass(frozen=True)
class Comparison:
    """Two checkpoints on one suite. ``pairs`` are all items, those with the greatest loss first."""

    suite: str
    pool: str
    pairs: tuple[PairedItem, ...]
    table: OutcomeTable
    scores: ScoreTable

    @cached_property
    def families(self) -> tuple[str, ...]:
        return tuple(sorted({pair.before.family for pair in self.pairs}))

    @cached_property
    def total(self) -> OutcomeCounts:
        """Of the graded items."""
        return total_of(self.table)

    @cached_property
    def both_right(self) -> int:
        return sum(bool(pair.before.correct and pair.after.correct) for pair in self.pairs)

    @property
    def both_wrong(self) -> int:
        return self.total.n - self.both_right - self.total.gains - self.total.losses

    @property
    def p(self) -> float:
        return sign_test(self.total.gains, self.total.losses)

    @cached_property
    def interval(self) -> Interval | None:
        """Of the difference of the shares of right answers (95 %, Tango's score method); None without graded items."""
        if not self.total.n:
            return None
        return difference_interval(self.total.gains, self.total.losses, self.total.n)

    def of_family(self, family: str | None) -> Comparison:
        """The items of one family. Raises PreconditionFailed for one that the suite has not."""
        if family is None:
            return self
        if family not in self.families:
            raise PreconditionFailed(f"no item of {family!r}: the suite has {', '.join(self.families)}.")
        return replace(
            self,
            pairs=tuple(pair for pair in self.pairs if pair.before.family == family),
            table=tuple(cell for cell in self.table if cell.family == family),
            scores=tuple(task for task in self.scores if task.family == family),
        )


_cache: OrderedDict[tuple[str, ...], Comparison] = OrderedDict()
"""By the artifacts that they were made from, which never change."""


def compare(reader: Reader, earlier: CheckpointRow, later: CheckpointRow, suite: str = "eval") -> Comparison:
    """Both checkpoints on a suite of the pool, or of that id.

    Raises PreconditionFailed for a confirm suite and for a checkpoint without a record on it, NotComparable for records
    made under different conditions, ArtifactError for a record that is gone or damaged.
    """
    from ratchet.artifacts.artifact_store import artifact_store  # fsspec, which few topics need

    row = suite_named(reader.session, suite)
    if row.pool == "confirm":
        raise PreconditionFailed("confirm suites are never shown: they decide on deployments.")
    records = [_record(reader.session, checkpoint, row) for checkpoint in (earlier, later)]
    key = (reader.settings.artifact_url, row.artifact, *(record.artifact for record in records))
    found = _cache.get(key)
    if found is None:
        store = artifact_store(reader.settings)
        before, after = (read_evaluation(store, record) for record in records)
        items = load_suite(store, row).by_id
        pairs = [PairedItem(items[one.item_id], _slim(one), _slim(two)) for one, two in paired(before, after)]
        pairs.sort(key=lambda pair: (pair.gain, pair.before.family, pair.before.level))
        found = Comparison(row.id, row.pool, tuple(pairs), outcome_table(before, after), score_table(before, after))
        _cache[key] = found
        while len(_cache) > MOST_CACHED:
            _cache.popitem(last=False)
    return found


def _slim(record: ItemRecord) -> ItemRecord:
    return record.model_copy(update={"token_logprobs": (), "token_ids": ()})


def _record(session: Session, checkpoint: CheckpointRow, suite: SuiteRow) -> EvaluationRow:
    record = evaluation(session, checkpoint.id, suite.id)
    if record is None:
        raise PreconditionFailed(
            f"{label(checkpoint)} has no record on that suite: `ratchet why {checkpoint.ordinal}` lists its records."
        )
    return record


def diff(
    reader: Reader,
    earlier: str,
    later: str,
    suite: str = "eval",
    family: str | None = None,
    limit: int = 20,
) -> Topic:
    """List the items on which two checkpoints differ.

    Losses come first, then gains, with both answers; of a task that is not graded the items whose score has changed
    most, the worst first. Confirm suites are never shown: a test set loses its value when
    its items are known.
    """
    pair = [find_checkpoint(reader.session, name) for name in (earlier, later)]
    compared = compare(reader, pair[0], pair[1], suite).of_family(family)
    found = [each for each in compared.pairs if each.gain]
    names = [label(checkpoint) for checkpoint in pair]
    columns = {
        "": lambda d: d.text,
        "family": lambda d: d.before.family,
        ">level": lambda d: d.before.level,
        "question": lambda d: shortened(d.item.question, WIDEST_CELL),
        "expected": lambda d: shortened(gold(d.item), WIDEST_CELL),
        names[0]: lambda d: shortened(d.before.answer, WIDEST_CELL),
        names[1]: lambda d: shortened(d.after.answer, WIDEST_CELL),
    }
    return Topic(
        [Table("items", found[:limit], columns, PairedItem.values)],
        lead=" ".join(comparison_in_words(names[0], names[1], compared)),
        note=f"… and {len(found) - limit} more: --limit {len(found)}." if len(found) > limit else "",
        json_fields={
            "suite": compared.suite,
            **compared.total.model_dump(),
            "tasks": [task.model_dump(exclude={"differences"}) for task in compared.scores],
        },
    )


def sign_test(gains: int, losses: int) -> float:
    """Exact two-sided p-value of the split if gains and losses were equally likely (McNemar's test)."""
    differing, fewer = gains + losses, min(gains, losses)
    # In integers: no float holds 2**1024.
    return min(1.0, 2 * sum(comb(differing, k) for k in range(fewer + 1)) / (1 << differing))


def comparison_in_words(earlier: str, later: str, compared: Comparison) -> list[str]:
    """A sentence about the graded items, and one about each task of another metric."""
    graded = [_summary(earlier, later, compared)] if compared.table else []
    return [*graded, *(_score_summary(earlier, later, task) for task in compared.scores)]


def _summary(earlier: str, later: str, compared: Comparison) -> str:
    p, total = compared.p, compared.total
    often = f"once in {1 / p:,.0f} times" if p > 1e-6 else "less than once in a million times"
    chance = f"chance alone gives that {often}" if p < 0.5 else "that may well be chance"
    return (
        f"{later} against {earlier} on {total.n} {compared.pool} items: {total.gains} gained, {total.losses} lost, "
        f"{100 * total.effect:+.1f} points; {chance} (p = {p:.2g}, one comparison, not corrected)."
    )


def _score_summary(earlier: str, later: str, task: PairedScores) -> str:
    """The change of a task's mean, with the interval of the clipped differences."""
    if not task.n:
        return f"{task.family}: no item has a score in both records."
    bound = BOUNDS[task.metric]
    interval = mean_interval(task.differences, bound)
    if task.metric == "loss":
        told = f"loss {task.before:.2f} → {task.after:.2f} nats/token"
        span = f"{-interval.high:+.2f} to {-interval.low:+.2f}"
    else:
        told = f"preferred {task.before:.0%} → {task.after:.0%}"
        span = f"{100 * interval.low:+.0f} to {100 * interval.high:+.0f} points"
    return (
        f"{task.family}, {later} against {earlier}: {told} on {task.n} items (95 % of the change {span}, differences "
        f"clipped at {bound:g})."
    )

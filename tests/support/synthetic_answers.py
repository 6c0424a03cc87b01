"""Suites of a made-up ledger, and the answers of its checkpoints to them.

Answers are drawn at random: the later the checkpoint, the more of them are right. No model is trained or asked.
"""

from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np
from ratchet.data.example import Example
from ratchet.evaluation.build_suites import build_suites
from ratchet.evaluation.record import Evaluation, ItemRecord, RecordKey
from ratchet.evaluation.suite import POOLS, Pool
from ratchet.settings.judging import SuiteSettings

from tests.support.synthetic_rows import Rows

TASKS = {"menus": "accuracy", "notes": "loss", "letters": "judge", "general": "loss"}
"""Metrics of the tasks with rows of a user, and of the general task."""

TASK_ITEMS = 16
"""Items of each task in a pool."""

ERRORS = ("wrong", "length", "carry")
CONDITIONS = {
    "grader": "chain_sum@1+reverse@1+sort_digits@1+declared@3",
    "decoding": "131134c5ad78/plain-0aa3f4be",
    "dtype": "fp32",
    "engine": "transformers-5.23.0/torch-2.13.0/sdpa",
    "gpu_class": "cpu",
}


class Answers:
    """``suites`` has items of all built-in families, and of each of TASKS."""

    def __init__(self, rows: Rows):
        self._rows = rows
        own = {pool: [item for task in TASKS for item in self._task_items(task, pool)] for pool in POOLS}
        self.suites = build_suites(SuiteSettings(), own)
        self._variants_of = {p: [self._variants(item) for item in suite.items] for p, suite in self.suites.items()}

    def drawn(self, i: int, pool: Pool) -> Evaluation:
        """The checkpoint's answers: the later it is, the more levels it has learnt. The base model has learnt none."""
        fixed, own = (np.random.default_rng((self._rows.seed, POOLS.index(pool), n)) for n in (0, i + 1))
        items = self.suites[pool].items
        skill = 6.5 * (1 - exp(-3 * i / self._rows.size.checkpoints)) - (2.5 if dips(i) else 0.5)
        level = np.array([3 if item.family in TASKS else item.level for item in items])
        chance = 1 / (1 + np.exp(-2.5 * (skill - level)))
        is_good = (i > 0) & (fixed.random(len(items)) + own.normal(0, 0.06, len(items)) < chance)
        drawn = zip(self._variants_of[pool], is_good, own.integers(3, size=len(items)), strict=True)
        key = RecordKey(weights=self._rows.digest("weights", i), suite=self.suites[pool].id, **CONDITIONS)
        records = tuple(answers[int(good)][n] for answers, good, n in drawn)
        return Evaluation.model_construct(checkpoint_id=self._rows.ids[i], key=key, items=records)

    def _task_items(self, task: str, pool: Pool) -> list[Example]:
        known = {"family": task, "level": 1, "source": self._rows.free(f"{task}.jsonl"), "metric": TASKS[task]}
        known |= {"grader": "exact"} if TASKS[task] == "accuracy" else {}
        free = self._rows.free
        texts = ((free(f"{pool} question {n} of {task}?"), free(f"answer {n}")) for n in range(TASK_ITEMS))
        return [Example.ask(question, answer, **known) for question, answer in texts]

    def _variants(self, item: Example) -> tuple[list[ItemRecord], list[ItemRecord]]:
        """Three bad and three good answers to an item."""
        bad, good = ([self._variant(item, n, is_good) for n in range(3)] for is_good in (False, True))
        return bad, good

    def _variant(self, item: Example, n: int, is_good: bool) -> ItemRecord:
        metric = TASKS.get(str(item.family), "accuracy")
        text = str(item.answer) if is_good else self._rows.free(f"{str(item.answer)[::-1][:40]}{n}")
        length = min(40, len(text))
        fields: dict[str, Any] = {"correct": is_good, "error": None if is_good else ERRORS[n]}
        if metric == "loss":
            fields = {"correct": None}
        elif metric == "judge":
            vote = {"no_vote": self._rows.free("not A, B or TIE")} if n == 2 else {"preference": float(is_good)}
            fields = {"correct": None, **vote}
        return ItemRecord(
            item_id=item.id,
            key=str(item.metadata["key"]),
            family=str(item.family),
            level=item.level,
            answer=text,
            extracted=text,
            extraction="ok",
            token_logprobs=(log((0.97 if is_good else 0.8) - 0.15 * n),) * length,
            finish_reason="stop",
            latency_s=0.05,
            token_ids=tuple(range(length)),
            gold_nll=1 + 0.01 * n if item.family == "general" else (0.2 if is_good else 1.6) + 0.2 * n,
            gold_tokens=4,
            metric=metric,
            **fields,
        )


def dips(i: int) -> bool:
    """Whether the checkpoint is worse than those around it."""
    return i % 17 == 9

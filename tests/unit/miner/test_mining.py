from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from miner.mining import categorise, counts, mine, near_frontier
from ratchet.data.example import Example
from ratchet.evaluation.record import Evaluation, ItemRecord, RecordKey
from ratchet.tasks.graders import item_key

KEY = RecordKey(weights="w", suite="s", grader="g", decoding="d", dtype="fp32", engine="e", gpu_class="cpu")


def item(question: str, answer: str, level: int = 1) -> Example:
    return Example.ask(question, answer, family="chain_sum", level=level)


def record(example: Example, correct: bool, probabilities: Sequence[float], answer: str = "?") -> ItemRecord:
    return ItemRecord(
        item_id=example.id,
        key=item_key(example),
        family=example.family or "",
        level=example.level,
        answer=answer,
        extracted=answer,
        extraction="ok",
        correct=correct,
        token_logprobs=tuple(math.log(p) for p in probabilities),
        finish_reason="stop",
        latency_s=0.0,
    )


A, B, C, D = item("1+2=", "1+2=3"), item("1+3=", "1+3=4"), item("1+4=", "1+4=5"), item("1+1+1=", "1+1=2;2+1=3", 2)


@pytest.mark.parametrize(
    ("correct", "probabilities", "category"),
    [
        (False, [0.99, 0.5], "wrong"),
        (False, [0.95, 0.95], "overconfident_wrong"),
        (False, [], "wrong"),
        (True, [0.99, 0.49], "low_margin"),
        (True, [0.99, 0.51], None),
    ],
)
def test_categories(correct: bool, probabilities: list[float], category: str | None) -> None:
    assert categorise(record(A, correct, probabilities)) == category


def evaluation(*items: ItemRecord) -> Evaluation:
    return Evaluation(checkpoint_id="c1", key=KEY, items=items)


def test_the_weakest_come_first_and_the_budget_holds() -> None:
    told = evaluation(record(A, True, [0.4]), record(B, False, [0.99]), record(C, False, [0.5]), record(D, True, [0.9]))
    found = mine(told, [A, B, C, D], {}, budget=9)
    assert [weak.key for weak in found] == [item_key(B), item_key(C), item_key(A)]
    assert counts(found) == {"overconfident_wrong": 1, "wrong": 1, "low_margin": 1}
    assert mine(told, [A, B, C, D], {}, budget=1) == found[:1]


def test_what_was_mined_before_comes_later() -> None:
    told = evaluation(record(A, False, [0.8]), record(B, False, [0.5]))
    found = mine(told, [A, B], {item_key(A): 1}, budget=9)
    assert [weak.key for weak in found] == [item_key(B), item_key(A)]


def test_levels_without_a_right_answer_are_beyond_the_frontier() -> None:
    found = mine(evaluation(record(A, False, [0.5]), record(D, False, [0.5])), [A, D], {}, budget=9)
    near = near_frontier(found, {("chain_sum", 1): 0.5, ("chain_sum", 2): 0.0})
    assert [weak.key for weak in near] == [item_key(A)]

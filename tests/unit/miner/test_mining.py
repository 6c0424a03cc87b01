from __future__ import annotations

from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st
from miner.mining import Category, categorise, counts, mine, near_frontier
from ratchet.data.example import Example
from ratchet.evaluation.record import Evaluation, ItemRecord, RecordKey
from ratchet.tasks import registry
from ratchet.tasks.family import to_example

KEY = RecordKey(weights="w", suite="s", grader="g", decoding="d", dtype="fp32", engine="e", gpu_class="cpu")
ITEMS = [to_example(registry.get("chain_sum").generate(1, seed), "probe") for seed in range(8)]


def record(item: Example = ITEMS[0], correct: bool = False, probabilities: tuple[float, ...] = (0.5,)) -> ItemRecord:
    return ItemRecord(
        item_id=item.id,
        key=str(item.metadata["key"]),
        family="chain_sum",
        level=item.level,
        answer="said",
        extracted="said",
        extraction="ok",
        correct=correct,
        token_logprobs=tuple(map(log, probabilities)),
        finish_reason="stop",
        latency_s=0.0,
    )


def evaluation(*records: ItemRecord) -> Evaluation:
    return Evaluation(checkpoint_id="c1", key=KEY, items=records)


@pytest.mark.parametrize(
    ("correct", "probabilities", "category"),
    [
        (False, (0.5,), "wrong"),
        (False, (0.91, 0.91), "overconfident_wrong"),
        (False, (1.0, 0.4), "wrong"),
        (False, (), "wrong"),
        (True, (0.99, 0.49), "low_margin"),
        (True, (0.6, 0.6), None),
        (True, (1.0,), None),
    ],
)
def test_categories(correct: bool, probabilities: tuple[float, ...], category: Category | None) -> None:
    assert categorise(record(correct=correct, probabilities=probabilities)) == category


def test_weakest_first_wrong_before_shaky_and_the_surer_the_weaker() -> None:
    made = evaluation(
        record(ITEMS[0], correct=True, probabilities=(0.1,)),
        record(ITEMS[1], probabilities=(0.2,)),
        record(ITEMS[2], probabilities=(0.95,)),
        record(ITEMS[3], correct=True, probabilities=(0.9,)),
    )
    found = mine(made, ITEMS, {}, 10)
    assert [item.example for item in found] == [ITEMS[2], ITEMS[1], ITEMS[0]]
    assert counts(found) == {"overconfident_wrong": 1, "wrong": 1, "low_margin": 1}
    assert found[0].answer == "said"


def test_what_was_mined_before_comes_after_what_is_new() -> None:
    made = evaluation(*(record(item) for item in ITEMS))
    stubborn = str(ITEMS[0].metadata["key"])
    found = mine(made, ITEMS, {stubborn: 3}, len(ITEMS))
    assert found[-1].key == stubborn
    assert stubborn not in {item.key for item in mine(made, ITEMS, {stubborn: 3}, len(ITEMS) - 1)}


def test_only_levels_within_reach_are_near_the_frontier() -> None:
    hard = to_example(registry.get("chain_sum").generate(3, 0), "probe")
    unseen = to_example(registry.get("chain_sum").generate(4, 0), "probe")
    found = mine(evaluation(record(ITEMS[0]), record(hard), record(unseen)), [*ITEMS, hard, unseen], {}, 9)
    near = near_frontier(found, {("chain_sum", 1): 0.2, ("chain_sum", 3): 0.19})
    assert [item.example for item in near] == [ITEMS[0]]


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.01, 1.0)), min_size=len(ITEMS), max_size=len(ITEMS)),
    st.integers(0, 10),
)
def test_never_over_budget_and_every_wrong_answer_is_found(marks: list[tuple[bool, float]], budget: int) -> None:
    records = [record(item, correct, (probability,)) for item, (correct, probability) in zip(ITEMS, marks, strict=True)]
    everything = mine(evaluation(*records), ITEMS, {}, len(ITEMS))
    assert {r.key for r in records if not r.correct} <= {item.key for item in everything}
    assert mine(evaluation(*records), ITEMS, {}, budget) == everything[:budget]

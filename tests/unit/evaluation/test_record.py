from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.errors import EmptyEvaluation
from ratchet.evaluation.record import (
    GENERAL,
    Metric,
    Rate,
    TaskScore,
    in_selection_split,
    in_test_split,
    level_rates,
    mastered_levels,
    records_from_lines,
    selection_score,
    task_scores,
)

from tests.support.records import evaluation


@given(st.text())
def test_every_item_is_in_one_half(item_id: str) -> None:
    assert in_selection_split(item_id) != in_test_split(item_id)


def test_the_halves_are_about_equal_and_never_change() -> None:
    chosen = [f"item-{i}" for i in range(2_000) if in_selection_split(f"item-{i}")]
    assert 900 < len(chosen) < 1_100
    assert chosen[:4] == ["item-0", "item-1", "item-3", "item-4"]


def test_the_score_reads_the_selection_split_alone() -> None:
    names = [f"sum:1:{i}" for i in range(40)]
    assert selection_score(evaluation("a", {("sum", 1): [in_selection_split(name) for name in names]})) == 1.0
    assert selection_score(evaluation("b", {("sum", 1): [in_test_split(name) for name in names]})) == 0.0


def test_of_a_few_items_all_count_where_none_is_in_the_split() -> None:
    none = next(n for n in range(100) if in_test_split(f"sum:1:{n}"))
    record = evaluation("a", {("sum", 1): [True] * (none + 1)})
    lone = record.model_copy(update={"items": (record.items[none],)})
    assert selection_score(lone) == 1.0
    with pytest.raises(EmptyEvaluation, match="no item to be selected by"):
        selection_score(evaluation("a", {}))


record = evaluation(
    "a",
    {
        ("sum", 1): [True] * 10,
        ("sum", 2): [True] * 9 + [False],
        ("sum", 3): [True] * 8 + [False] * 2,
        ("sort", 1): [True] * 3,
        ("copy", 1): [False] * 10,
    },
)


def test_a_level_is_mastered_from_the_threshold_on_and_on_enough_items() -> None:
    assert mastered_levels(record, 0.9, min_items=5) == {"sum": frozenset({1, 2})}


def test_few_items_count_where_few_are_asked_for() -> None:
    assert mastered_levels(record, 0.9, min_items=3)["sort"] == frozenset({1})


def test_rates_by_level() -> None:
    rates = level_rates(record.items)
    assert rates["sum", 3] == Rate(correct=8, n=10)
    assert rates["sum", 3].value == 0.8


def test_a_line_of_an_earlier_version_is_read_as_accuracy() -> None:
    record = evaluation("a", {("sum", 1): [True]}).items[0]
    old = record.model_dump(mode="json", exclude={"metric", "error", "preference", "no_vote", "gold_tokens"})
    (read,) = records_from_lines([json.dumps(old)])
    assert read == record
    assert (read.metric, read.score, read.bounded_score) == ("accuracy", 1.0, 1.0)


def test_a_score_follows_the_metric_and_higher_is_better() -> None:
    record = evaluation("a", {("notes", 1): [True]}).items[0].model_copy(update={"correct": None})
    loss = record.model_copy(update={"metric": "loss", "gold_nll": 2.0})
    judged = record.model_copy(update={"metric": "judge", "preference": 0.5, "gold_nll": 2.0})
    assert (loss.score, loss.bounded_score) == (-2.0, pytest.approx(0.1353, abs=1e-4))
    assert (judged.score, judged.bounded_score) == (0.5, 0.5)
    assert loss.model_copy(update={"gold_nll": None}).score is None


def test_rates_are_of_accuracy_items_and_task_scores_of_the_others() -> None:
    graded = evaluation("a", {("sum", 1): [True, False]})
    free = [
        item.model_copy(
            update={"item_id": f"notes:{nll}", "family": "notes", "metric": "loss", "correct": None, "gold_nll": nll}
        )
        for item, nll in zip(graded.items * 2, (1.0, 2.0, 3.0, None), strict=True)
    ]
    items = (*graded.items, *free)
    assert level_rates(items) == {("sum", 1): Rate(correct=1, n=2)}
    (score,) = task_scores(items).values()
    assert (score.metric, score.items, score.n, score.mean) == ("loss", 4, 3, 2.0)
    assert score.low < 1.0 < 3.0 < score.high


def test_the_general_task_does_not_count_for_selection() -> None:
    graded = evaluation("a", {("sum", 1): [True, False] * 10})
    general = [item.model_copy(update={"item_id": f"g{i}", "family": GENERAL}) for i, item in enumerate(graded.items)]
    both = graded.model_copy(update={"items": (*graded.items, *general)})
    assert selection_score(both) == selection_score(graded)


@pytest.mark.parametrize(
    ("metric", "low", "high", "text"),
    [("loss", -0.1, 1.5, "0.000 to 1.500"), ("judge", 0.43, 1.07, "43 to 100"), ("judge", -0.2, 0.3, "0 to 30")],
)
def test_an_interval_ends_where_the_metric_does(metric: Metric, low: float, high: float, text: str) -> None:
    score = TaskScore(metric=metric, items=8, n=8, mean=(low + high) / 2, low=low, high=high)
    assert score.interval_text == text

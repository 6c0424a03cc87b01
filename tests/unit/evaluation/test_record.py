from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.errors import EmptyEvaluation
from ratchet.evaluation.record import (
    Rate,
    in_selection_split,
    in_test_split,
    level_rates,
    mastered_levels,
    selection_score,
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


def test_an_empty_half_is_an_error() -> None:
    with pytest.raises(EmptyEvaluation, match="selection split"):
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

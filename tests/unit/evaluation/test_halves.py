from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.errors import EmptyEvaluation
from ratchet.evaluation.halves import choosing_score, is_choosing, is_testing

from tests.support.records import evaluation


@given(st.text())
def test_every_item_is_in_one_half(item_id: str) -> None:
    assert is_choosing(item_id) != is_testing(item_id)


def test_the_halves_are_about_equal_and_never_change() -> None:
    chosen = [f"item-{i}" for i in range(2_000) if is_choosing(f"item-{i}")]
    assert 900 < len(chosen) < 1_100
    assert chosen[:4] == ["item-0", "item-1", "item-3", "item-4"]


def test_the_score_reads_the_choosing_half_alone() -> None:
    names = [f"sum:1:{i}" for i in range(40)]
    assert choosing_score(evaluation("a", {("sum", 1): [is_choosing(name) for name in names]})) == 1.0
    assert choosing_score(evaluation("b", {("sum", 1): [is_testing(name) for name in names]})) == 0.0


def test_an_empty_half_is_an_error() -> None:
    with pytest.raises(EmptyEvaluation, match="choosing half"):
        choosing_score(evaluation("a", {}))

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from miner.batch_coverage import ENOUGH, Row, measure, normalised_entropy
from ratchet.data.example import Example
from ratchet.errors import EmptyEvaluation


def row(question: str, level: int = 1, family: str | None = "sums", traits: str = "", answer: str = "12") -> Row:
    example = Example.ask(question, answer, family=family, level=level)
    return Row(example, question, frozenset(traits), frozenset("ab"))


def test_duplicates_and_novelty() -> None:
    found = measure([row("a"), row("a"), row("b"), row("c")], {}, lambda _keys: {"a": 2, "b": 5, "c": 1})
    assert (found.rows, found.distinct, found.duplicates) == (4, 3, 1)
    assert found.novelty == pytest.approx(2 / 3)
    assert found.mean_answer_chars == 2.0


def test_a_gap_is_how_far_a_wanted_level_falls_short() -> None:
    rows = [row(f"{n}", level=1) for n in range(9)] + [row("x", level=2)]
    found = measure(rows, {("sums", 1): 0.6, ("sums", 2): 0.2, ("sums", 3): 0.2})
    assert found.gaps() == {("sums", 2): pytest.approx(0.5), ("sums", 3): 1.0}
    by_level = {cell.level: cell for cell in found.cells}
    assert (by_level[1].rows, by_level[1].share, by_level[1].gap) == (9, 0.9, 0.0)
    assert (by_level[3].rows, by_level[3].wanted) == (0, 0.2)


def test_without_a_wanted_mix_there_are_no_gaps() -> None:
    assert measure([row("a"), row("b", level=2)], {}).gaps() == {}


def test_rows_without_a_family_are_a_cell_of_their_own() -> None:
    (cell,) = measure([row("a", family=None)], {}).cells
    assert cell.family == "unknown"


def test_an_empty_batch_is_an_error() -> None:
    with pytest.raises(EmptyEvaluation):
        measure([], {("sums", 1): 1.0})


@pytest.mark.parametrize(
    ("counts", "entropy"), [([5, 5], 1.0), ([7], 1.0), ([7, 0], 1.0), ([1, 3], 0.8112781244591328), ([], 1.0)]
)
def test_entropy(counts: list[int], entropy: float) -> None:
    assert normalised_entropy(counts) == pytest.approx(entropy)


@given(st.lists(st.integers(0, 100), max_size=8))
def test_entropy_is_between_0_and_1_and_only_even_cells_reach_1(counts: list[int]) -> None:
    value = normalised_entropy(counts)
    assert 0.0 <= value <= 1.0 + 1e-12
    found = {count for count in counts if count}
    if len(found) > 1:
        assert value < 1.0


def test_features_are_counted_by_cell_and_a_declared_one_that_is_nowhere_is_absent() -> None:
    rows = [row(f"{n}", traits="a") for n in range(ENOUGH)] + [row("x", level=2, traits="ab")]
    one, two = measure(rows, {}).cells
    assert (one.features, one.absent) == ({"a": ENOUGH, "b": 0}, ("b",))
    assert (two.features, two.absent) == ({"a": 1, "b": 1}, ())


def test_answers_are_counted_by_length() -> None:
    rows = [row(f"{n}", answer="x" * n) for n in (1, 2, 3, 4, 7, 8)]
    assert measure(rows, {}).lengths == {2: 1, 4: 2, 8: 2, 16: 1}

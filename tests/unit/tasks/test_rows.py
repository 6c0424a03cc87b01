"""Error classes of the two families of rows: letters to reverse and digits to sort."""

from __future__ import annotations

import pytest
from ratchet.tasks.family import TaskFamily
from ratchet.tasks.reverse import Reverse
from ratchet.tasks.sort_digits import SortDigits


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("dcb", "truncated"),
        ("dcbaa", "length"),
        ("abcd", "copied"),
        ("dcab", "order"),
        ("dcbz", "wrong"),
        ("d c b a", "format"),
        ("", "format"),
    ],
)
def test_reverse(answer: str, error: str) -> None:
    assert _error(Reverse(), "reverse:abcd", answer) == error


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("122", "truncated"),
        ("12255", "length"),
        ("5221", "descending"),
        ("2125", "order"),
        ("1235", "lost_digit"),
        ("1,2,2,5", "format"),
    ],
)
def test_sort_digits(answer: str, error: str) -> None:
    assert _error(SortDigits(), "sort:2521", answer) == error


def test_sorting_another_order_of_the_digits_keeps_the_gold() -> None:
    family = SortDigits()
    problem = family.parse("sort:2521")
    assert problem is not None
    first = next(family.perturb(problem, seed=0))
    assert (first.gold, first.question != problem.question) == ("1225", True)


def _error(family: TaskFamily, question: str, answer: str) -> str | None:
    problem = family.parse(question)
    assert problem is not None
    return family.grade(problem, answer).error

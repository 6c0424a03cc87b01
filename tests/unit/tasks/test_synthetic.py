"""Error classes of the two families of rows: letters to reverse and digits to sort."""

from __future__ import annotations

import pytest
from ratchet.tasks.family import TaskFamily
from ratchet.tasks.synthetic import ChainSum, Reverse, SortDigits

FAMILY = ChainSum()


def test_trace_is_a_running_total() -> None:
    problem = FAMILY.parse("47+8+0=")
    assert problem is not None
    assert (problem.level, problem.gold, problem.solution) == (2, "55", "47+8=55;55+0=55")


@pytest.mark.parametrize(
    "question", ["47+8", "8=", "50+1=", "07+1=", "1+22=", "1+2+3+4+5+6+7+8=", "1-2=", "٣+٤=", "1+2=3"]
)
def test_a_foreign_question_is_refused(question: str) -> None:
    assert FAMILY.parse(question) is None


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("8+7=15;15+9=25", "off_by_one"),
        ("8+7=15;15+9=14", "carry"),
        ("8+7=15;15+9=99", "wrong"),
        ("8+7=16;16+9=25", "off_by_one"),
        ("8+7=15", "truncated"),
        ("8+7=15;15+9=", "truncated"),
        ("8+6=14;14+9=23", "operand"),
        ("8+7=1;1+9=10", "operator"),
        ("8+7=15;15+9=135", "operator"),
        ("25", "off_by_one"),
        ("14", "carry"),
        ("8+7=15;15+9=24 or so", "format"),
        ("=twenty-four", "format"),
        ("", "format"),
    ],
)
def test_error_classes(answer: str, error: str) -> None:
    problem = FAMILY.parse("8+7+9=")
    assert problem is not None
    grade = FAMILY.grade(problem, answer)
    assert not grade.correct
    assert grade.error == error


def test_a_bare_result_counts() -> None:
    problem = FAMILY.parse("8+7+9=")
    assert problem is not None
    assert FAMILY.grade(problem, "24").correct


def test_swapping_terms_comes_first_and_keeps_the_gold() -> None:
    problem = FAMILY.parse("4+7+9=")
    assert problem is not None
    relatives = list(FAMILY.perturb(problem, seed=0))
    assert {relative.question for relative in relatives[:3]} == {"7+4+9=", "9+7+4=", "4+9+7="}
    assert {relative.gold for relative in relatives[:3]} == {"20"}


def test_a_term_of_two_digits_stays_first() -> None:
    problem = FAMILY.parse("47+8=")
    assert problem is not None
    assert all(FAMILY.parse(relative.question) == relative for relative in FAMILY.perturb(problem, seed=0))


def test_traits() -> None:
    for question, traits in (
        ("8+7+0=", {"carry", "zero"}),
        ("1+1=", {"no_carry", "double"}),
        ("19+1=", {"carry", "from_20"}),
    ):
        problem = FAMILY.parse(question)
        assert problem is not None
        assert FAMILY.traits(problem) == traits


def test_a_swapped_sum_has_the_same_gold() -> None:
    problem = FAMILY.parse("47+8+3=")
    assert problem is not None
    (variant,) = FAMILY.variants(problem, 0)
    assert (variant.problem.question, variant.problem.gold) == ("47+3+8=", problem.gold)


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

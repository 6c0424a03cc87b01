from __future__ import annotations

from collections.abc import Callable

import pytest
from ratchet.errors import DataError
from ratchet.tasks import registry
from ratchet.tasks.reasoning_gym import verified_score


class Verifier:
    """Answers as a dataset of the library does, by a rule."""

    def __init__(self, rule: Callable[[str], float]):
        self._rule = rule

    def score_answer(self, answer: str, entry: dict[str, str]) -> float:
        assert entry["answer"]
        return self._rule(answer)


def must_not_be_asked(answer: str) -> float:
    raise SystemExit(f"{answer} reached the verifier")


def test_a_level_is_one_level_of_every_attribute() -> None:
    family = registry.get("rg:chain_sum")
    for level in (1, 2, 3):
        questions = [family.generate(level, seed).question for seed in range(20)]
        operands = {sum(word.lstrip("-").isdigit() for word in question.split()) for question in questions}
        digits = {len(word) for question in questions for word in question.split() if word.isdigit()}
        assert operands == {level + 1}
        assert digits == {level}


def test_the_verifier_decides_not_the_spelling() -> None:
    family = registry.get("rg:chain_sum")
    problem = family.generate(2, 4)
    assert family.grade(problem, f"{problem.gold}.0").correct
    assert not family.grade(problem, str(int(problem.gold) + 1)).correct


def test_a_dataset_without_gold_is_refused() -> None:
    with pytest.raises(DataError, match="without a gold"):
        registry.get("rg:propositional_logic").generate(1, 0)


def test_a_problem_that_the_library_cannot_make_is_a_data_error() -> None:
    with pytest.raises(DataError, match=r"rg:knight_swap cannot generate level 1, seed 0"):
        registry.get("rg:knight_swap").generate(1, 0)


def test_levels_that_the_library_cannot_make_are_no_levels() -> None:
    family = registry.get("rg:spell_backward")
    assert family.levels == (1, 2, 3, 4)
    assert all(family.generate(level, 0).gold for level in family.levels)


def test_a_verifier_that_accepts_nonsense_is_rejected() -> None:
    entry = {"answer": "False"}
    assert verified_score("game_of_life_halting", Verifier(lambda _: 1.0), entry, "True") == 0.0
    assert verified_score("game_of_life_halting", Verifier(lambda _: 1.0), entry, "False") == 1.0


def test_a_verifier_that_raises_has_read_no_answer() -> None:
    assert verified_score("prime_factorization", Verifier(float), {"answer": "2 × 3"}, "six") is None


@pytest.mark.parametrize("dataset", ["n_queens", "string_insertion", "binary_matrix", "spiral_matrix"])
@pytest.mark.parametrize("answer", ["__import__('os').system('true')", "[x for x in ()]", "exit()"])
def test_an_answer_is_never_evaluated(dataset: str, answer: str) -> None:
    assert verified_score(dataset, Verifier(must_not_be_asked), {"answer": "[[0]]"}, answer) is None


@pytest.mark.parametrize("dataset", ["simple_integration", "countdown", "puzzle24", "polynomial_multiplication"])
@pytest.mark.parametrize(
    "answer",
    [
        "__import__('os')",
        "open('x')",
        "x.__class__",
        "9**9**9",
        "(9**9)**9",
        "x**99999",
        "9^9^9",
        "lambda: 1",
        "1" * 30,
    ],
)
def test_algebra_is_plain_and_small(dataset: str, answer: str) -> None:
    assert verified_score(dataset, Verifier(must_not_be_asked), {"answer": "1"}, answer) is None


def test_algebra_is_still_verified() -> None:
    family = registry.get("rg:polynomial_multiplication")
    problem = family.generate(1, 3)
    terms = problem.gold.replace(" - ", " + -").split(" + ")
    assert family.grade(problem, " + ".join(reversed(terms))).correct
    assert not family.grade(problem, f"{problem.gold} + 1").correct

from __future__ import annotations

import pytest
from ratchet.errors import DataError
from ratchet.evaluation.suite import hold_out
from ratchet.tasks import registry
from ratchet.tasks.judge import MAX_ANSWER_LENGTH, Judge, judgement, subject_key

FAMILY = Judge()
SUM = registry.get("chain_sum")


@pytest.mark.parametrize(
    ("question", "gold"),
    [
        ("judge:47+8= | 47+8=55", "right"),
        ("judge:47+8= | 55", "right"),
        ("judge:47+8= | 54", "wrong"),
        ("judge:reverse:cab | bac", "right"),
        ("judge:reverse:cab | cab", "wrong"),
    ],
)
def test_the_family_of_the_question_decides(question: str, gold: str) -> None:
    problem = FAMILY.parse(question)
    assert problem is not None
    assert problem.gold == gold


@pytest.mark.parametrize(
    "question", ["judge:47+8=", "47+8= | 55", "judge:who? | me", "judge:47+8= | ", "judge:judge:1+1= | 2 | right"]
)
def test_a_foreign_question_is_refused(question: str) -> None:
    assert FAMILY.parse(question) is None


def test_errors_say_on_which_side() -> None:
    problem = FAMILY.parse("judge:1+1= | 2")
    assert problem is not None
    assert FAMILY.grade(problem, "wrong").error == "too_strict"
    assert FAMILY.grade(problem, "maybe").error == "format"


def test_a_judgement_is_held_out_with_its_problem() -> None:
    held = hold_out({"chain_sum": SUM}, [("chain_sum", 1)], seed=3)
    problems = [SUM.generate(1, seed) for seed in range(60)]
    asked = [judgement(problem, answer) for problem in problems for answer in ("1", problem.gold)]
    assert {problem.key in held for problem in problems} == {True, False}
    assert all((item.key in held) == (subject_key(item.key) in held) for item in asked)


@pytest.mark.parametrize("answer", ["", "  ", "1" * (MAX_ANSWER_LENGTH + 1)])
def test_an_unfit_answer_is_refused(answer: str) -> None:
    with pytest.raises(DataError, match="an answer to judge"):
        judgement(SUM.generate(1, 1), answer)

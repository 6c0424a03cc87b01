from __future__ import annotations

import pytest
from ratchet.data.example import Example
from ratchet.tasks import registry
from ratchet.tasks.error_classes import GENERIC, classify
from ratchet.tasks.family import to_example

SUM = Example.ask("8+7+9=", "", gold="24", family="chain_sum", level=2)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("8+7=15;15+9=24", None),
        ("", "empty"),
        ("Error: CUDA out of memory", "error_text"),
        ("8+7=" + "1;" * 12, "repetition"),
        ("It is 24, I think", "extraction"),
        ("8+7=15;15+9=25", "off_by_one"),
        ("8+7=15;15+9=135", "operator"),
        ("no idea", "format"),
    ],
)
def test_a_family_item(answer: str, error: str | None) -> None:
    assert classify(SUM, answer) == error


def test_an_answer_that_ran_into_the_limit_is_truncated() -> None:
    assert classify(SUM, "first, eight and", finished=False) == "truncated"
    assert classify(SUM, "8+7=15;15+9=25", finished=False) == "off_by_one"


def test_the_text_around_the_answer_is_classified_too() -> None:
    assert classify(SUM, "", "so it is 24 then") == "extraction"


@pytest.mark.parametrize(
    ("grader", "gold", "answer", "error"),
    [
        ("numeric", "42", "-42", "sign"),
        ("numeric", "42", "43", "off_by_one"),
        ("numeric", "1,200", "120", "magnitude"),
        ("numeric", "42", "17", "wrong"),
        ("numeric", "0", "17", "wrong"),
        ("json", '{"a": 1}', "[1]", "structure"),
        ("json", '{"a": 1}', '{"b": 1}', "keys"),
        ("json", "[1, 2]", "[1]", "length"),
        ("json", "[1, 2]", "[1, 3]", "wrong"),
        ("numeric", "42", "41 or 42", "ambiguous"),
        ("math", "42", "-42", "sign"),
        ("math", "x^2", "x^3", "wrong"),
        ("choice", "B", "C", "wrong"),
        ("normalized", "blue", "red", "wrong"),
        ("normalized", "blue", "I would say that it is blue", "wordy"),
        ("normalized", "blue", "The answer is blue", None),
    ],
)
def test_a_declared_grader(grader: str, gold: str, answer: str, error: str | None) -> None:
    assert classify(Example.ask("?", gold, gold=gold, grader=grader, family="text"), answer) == error


def test_every_class_of_a_family_is_declared() -> None:
    for name in ("chain_sum", "reverse", "sort_digits", "judge"):
        family = registry.get(name)
        for seed in range(20):
            example = to_example(family.generate(2, seed), "test")
            for answer in ("", "x", "12", "abc", "8+7=1", str(example.answer)[:-1], str(example.answer) + "0"):
                assert classify(example, answer) in {None, *family.errors, *GENERIC}

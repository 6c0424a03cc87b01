from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from ratchet.data.example import Example
from ratchet.data.jsonl import read_examples
from ratchet.errors import DataError, UnknownPlugin
from ratchet.tasks import graders
from ratchet.tasks.graders import gold, grade_example, item_key

DATA = Path(__file__).parents[2] / "data"


def rows(name: str) -> list[Example]:
    read = [example for _, example in read_examples(DATA / f"{name}.jsonl")]
    assert all(isinstance(example, Example) for example in read)
    return [example for example in read if isinstance(example, Example)]


@pytest.mark.parametrize(
    ("grader", "gold", "answer"),
    [
        ("exact", "Paris", " Paris\n"),
        ("normalized", "office", "  The Office.".replace("The ", "")),
        ("normalized", "Straße  1", "STRASSE 1!"),
        ("numeric", "250", "It costs 250."),
        ("numeric", "1,250", "$1250.00"),
        ("numeric", "She pays 3.\n#### 12", "12"),
        ("numeric", "-0.5", "x = -.5"),
        ("numeric", "1e3", "1000"),
        ("json", '{"a": [1, 2], "b": null}', '{"b":null,"a":[1.0,2]}'),
        ("json", '{"a": 1}', 'Here it is:\n```json\n{"a": 1}\n```\n'),
        ("json", "[1]", "The list is [1]."),
    ],
)
def test_accepts(grader: str, gold: str, answer: str) -> None:
    assert graders.grade_declared(grader, gold, answer).correct


@pytest.mark.parametrize(
    ("grader", "gold", "answer"),
    [
        ("exact", "Paris", "paris"),
        ("normalized", "office", "the office"),
        ("numeric", "250", "It costs 250 or 251."),
        ("numeric", "10", "100"),
        ("numeric", "1", "1.00001"),
        ("numeric", "5", "between 3-5"),
        ("numeric", "-5", "between 3-5"),
        ("json", '{"a": 1}', '{"a": true}'),
        ("json", '{"a": 1}', '{"a": 1, "b": 2}'),
        ("json", "[1, 2]", "[2, 1]"),
        ("json", '{"a": "x"}', "NaN"),
    ],
)
def test_rejects(grader: str, gold: str, answer: str) -> None:
    grade = graders.grade_declared(grader, gold, answer)
    assert not grade.correct
    assert grade.error in {"wrong", "format"}


@pytest.mark.parametrize("grader", ["normalized", "numeric", "json"])
@pytest.mark.parametrize("nothing", ["", "   \n", "...", "{}", "[]", '""'])
def test_an_empty_answer_never_equals_an_empty_gold(grader: str, nothing: str) -> None:
    assert not graders.grade_declared(grader, nothing, nothing).correct
    assert not graders.grade_declared(grader, nothing, "42").correct
    assert not graders.grade_declared(grader, "42", nothing).correct


def test_a_blank_gold_accepts_no_blank_even_exactly() -> None:
    assert graders.grade_declared("exact", " ", " ").error == "no_gold"


@pytest.mark.parametrize("grader", ["exact", "normalized", "numeric", "json"])
@pytest.mark.parametrize("text", ["Error: 42", "error : {}", "Exception: x", "Traceback (most recent call last):\n 42"])
def test_an_error_text_is_never_an_answer(grader: str, text: str) -> None:
    grade = graders.grade_declared(grader, text, text)
    assert (grade.correct, grade.error) == (False, "error_text")
    assert not graders.grade_declared(grader, "42", text).correct


def test_a_word_that_begins_like_error_is_an_answer() -> None:
    assert graders.grade_declared("normalized", "errors in judgement", "Errors in judgement").correct


def test_regex_compares_the_matches_of_the_pattern() -> None:
    pattern = r"=\s*([⓪①]+)"
    assert graders.grade_declared("regex", "add ① ① = ①⓪\n\nVerification: 2", "sum = ①⓪", pattern).correct
    assert not graders.grade_declared("regex", "add ① ① = ①⓪", "sum = ①①", pattern).correct
    assert graders.grade_declared("regex", "no match", "no match", pattern).error == "no_gold"


@pytest.mark.parametrize("pattern", [None, "", "(", "a" * 201, 7])
def test_a_bad_pattern_is_named(pattern: Any) -> None:
    with pytest.raises(DataError, match="pattern"):
        graders.grade_declared("regex", "a", "a", pattern)


def test_an_unknown_grader_lists_the_known() -> None:
    with pytest.raises(UnknownPlugin, match="exact, json, normalized, numeric, prefix, regex"):
        graders.grade_declared("fuzzy", "a", "a")


def test_deep_json_is_no_json() -> None:
    for deep in ("[" * 100_000, "[" * 700 + "1" + "]" * 700):
        assert graders.grade_declared("json", "[1]", deep).error == "format"


def test_extracted_answers_can_be_stored() -> None:
    grade = graders.grade_declared("json", "[1]", r'["\ud800", "é"]')
    assert grade.extracted == '["?", "é"]'
    assert grade.model_dump_json()


@pytest.mark.parametrize("name", ["gsm8k_200", "babi_qa1_100", "binary_100", "syllo_easy_50"])
def test_real_gold_is_accepted_and_nothing_vacuous(name: str) -> None:
    for example in rows(name):
        assert grade_example(example, gold(example)).correct
        for nothing in ("", " ", "Error: CUDA out of memory", "I do not know", "{}"):
            assert not grade_example(example, nothing).correct


def test_no_puzzle_accepts_junk() -> None:
    puzzles = rows("syllo_easy_50")
    assert len(puzzles) == 50
    assert not any(grade_example(puzzle, '{"foo":1}').correct for puzzle in puzzles)
    assert not any(grade_example(puzzle, gold(other)).correct for puzzle, other in pairwise(puzzles))


def test_a_question_without_gold_cannot_be_graded() -> None:
    question = Example.model_validate({"messages": [{"role": "user", "content": "Why?"}]})
    with pytest.raises(DataError, match="neither"):
        grade_example(question, "Because.")


def test_free_text_is_the_same_item_whatever_case_and_spacing() -> None:
    keys = {
        item_key(Example.ask(text, "Paris"))
        for text in ("Capital of  France?", "capital of France ", "Capital of France")
    }
    assert len(keys) == 1
    assert keys != {item_key(Example.ask("Capital of Spain?", "Paris"))}


def test_earlier_turns_tell_items_apart() -> None:
    def chat(first: str) -> Example:
        turns = [("user", first), ("assistant", "Yes."), ("user", "And then?"), ("assistant", "Home.")]
        return Example.model_validate({"messages": [{"role": role, "content": text} for role, text in turns]})

    assert item_key(chat("Did he go to work?")) != item_key(chat("Did he go to school?"))

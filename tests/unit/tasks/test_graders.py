from __future__ import annotations

import re
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
    assert grade.error in {"wrong", "format", "wordy", "ambiguous"}


TABLE = (
    # grader, gold, answer, the error (None where it is right)
    ("numeric", "5", "\u22125", "wrong"),
    ("numeric", "-5", "\u22125", None),
    ("numeric", "9500", "$9{,}500$", None),
    ("numeric", "9500", r"9\,500", None),
    ("numeric", "5000", r"5 \times 10^{3}", None),
    ("numeric", "1000", "10³", None),
    ("numeric", "1024", "2^{10}", None),
    ("numeric", "0.001", "1e-3", None),
    ("numeric", "1/2", "0.5", None),
    ("numeric", "0.5", "1/2", None),
    ("numeric", "0.5", "½", None),
    ("numeric", "0.5", r"\frac{1}{2}", None),
    ("numeric", "1.5", "1 1/2", None),
    ("numeric", "2.5", "2½ km", None),
    ("numeric", "-1.5", r"$-1\frac{1}{2}$", None),
    ("numeric", "4", r"\boxed{\sqrt{16}}", None),
    ("numeric", "36", "12*3", "ambiguous"),  # a product is no answer to what it comes to
    ("numeric", "12", "１２", None),
    ("numeric", "12", "१२", None),
    ("numeric", "12", "$12", None),
    ("numeric", "12", "12 km", None),
    ("numeric", "12", "12 dollars", None),
    ("numeric", "12", "€12", None),
    ("numeric", "50%", "50%", None),  # a percentage equals what is written, and its hundredth
    ("numeric", "50%", "0.5", None),
    ("numeric", "50%", "50", None),
    ("numeric", "50%", "50 percent", None),
    ("numeric", "0.5", "50%", None),
    ("numeric", "50", "50%", None),
    ("numeric", "50%", "0.5%", "wrong"),
    ("numeric", "50", "0.5", "wrong"),
    ("numeric", "1234.5", "1,234.5", None),
    ("numeric", "1234.5", "1.234,5", "ambiguous"),  # a comma separates thousands
    ("numeric", "1.5", "1,5", "ambiguous"),
    ("numeric", "42", "42. (Confidence: 90%)", None),
    ("numeric", "7", "The answer is 7 (see step 2)", None),
    ("numeric", "7", r"\boxed{7}. Check: 3 and 4, or 2 and 5.", None),
    ("numeric", "7", r"\boxed{7}" + "\nThe answer is 8", None),
    ("numeric", "8", "#### 8\n" + r"\boxed{7}", None),
    ("numeric", "7", "First 3, then 4.\nSo x + 1 = 7", None),
    ("numeric", "7", "Of 3 and 4\ncomes 7 in all.", None),
    ("numeric", "7", "It is 7.\n\nI hope this helps!", None),
    ("numeric", "7", "7 apples and 8 pears", "ambiguous"),
    ("numeric", "8", "7 apples and 8 pears", "ambiguous"),
    ("numeric", "7", "1 " * 15_000 + "is wrong, it is 7", "ambiguous"),
    ("numeric", "7", "1 " * 15_000 + "#### 7", None),
    ("numeric", "7", "7 and then " + "words " * 5_000, "format"),  # more than the end is not read
    ("numeric", "1000000", "1000001", "wrong"),
    ("numeric", "0.0000001", "0.0000002", "wrong"),
    ("numeric", "3.10", "3.1", None),
    ("numeric", "72", "I cannot say.", "format"),
    ("numeric", "She pays 3.\n#### 72", "She pays 3. Then 69.\n#### 72", None),
    ("math", r"\frac{1}{2}", "0.5", None),
    ("math", r"\frac{1}{2}", "½", None),
    ("math", "1/5", r"\dfrac{1}{5}", None),
    ("math", "1000000", "1000001", "wrong"),
    ("math", "0.0000001", "0.0000002", "wrong"),
    ("math", r"\sqrt{2}", "1.4142136", None),
    ("math", r"\sqrt{2}", "1.42", "wrong"),
    ("math", r"\frac{\sqrt{3}}{2}", r"The answer is $\frac{1}{2}\sqrt{3}$.", None),
    ("math", r"\frac{\sqrt{3}}{2}", r"So $\sin 60^\circ = \boxed{\dfrac{\sqrt{3}}{2}}$.", None),
    ("math", "2^{10}", "1024", None),
    ("math", "x^2+2x+1", "(x+1)^2", None),
    ("math", "x^2+2x+1", "(x+1)^3", "wrong"),
    ("math", r"\pi r^2 h", r"h \pi r^2", None),
    ("math", r"\pi r^2 h", r"\pi r^2", "wrong"),
    ("math", r"\{1,2\}", r"\{2,1\}", None),
    ("math", r"\{1,2\}", r"\{2,3\}", "wrong"),
    ("math", r"(-\infty,3]", r"(-\infty,3)", "wrong"),
    ("math", "(3, 4)", "(3,4)", None),
    ("math", "(3, 4)", "(4,3)", "wrong"),
    ("math", "[0,1)", "(0,1]", "wrong"),
    ("math", "x=5", "5", None),
    ("math", "3 + 4 = 7", "7", None),
    ("math", "x=5", "x = 6", "wrong"),
    ("math", "x<3", "3>x", None),
    ("math", "3+4=7", "1=1", "wrong"),
    ("math", "1 1/2", "1.5", None),
    ("math", "0.001", "$1e-3$", None),
    ("math", "3", r"\log_2 8", None),
    ("math", "2(5)", "10", None),
    ("math", "2(5)", "7", "wrong"),
    ("math", r"\boxed{\text{Even}}", "even", None),
    ("math", "x^2", "$x^2$ or $x^3$", "ambiguous"),
    ("math", "x^2", "So we get $ \\tfrac{x^3}{x} $.", None),
    ("math", "5", "$5 and $6", "wrong"),
    ("math", "5", "x = 5", None),
    ("math", "5", r"\pm 5", "wrong"),
    ("math", "5", "x < 5", "wrong"),
    ("math", "5", "5, 6", "wrong"),
    ("math", r"5\text{ cm}", "5", None),
    ("math", r"x^2 \text{ cm}", "x^2", None),
    ("math", r"\infty", "infinity", None),
    ("math", "n!", "n!", None),
    ("math", "ab", "ba", None),
    ("numeric", "6", "x = 5 and y = 6", "ambiguous"),
    ("numeric", "7", "3 + 3 = 6 and 6 + 1 = 7", None),
    ("math", "(1,2)", "1, 2", None),
    ("math", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\boxed{\begin{pmatrix}1&2\\3&4\end{pmatrix}}", None),
    ("math", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}", "wrong"),
    ("math", "2i+3", "3+2i", None),
    ("math", r"\frac{1}{3}", "0.3333333", None),
    ("math", r"\frac{1}{3}", "0.33", "wrong"),
    ("math", "x^2", "I do not know the formula.", "format"),
    ("choice", "B", "B", None),
    ("choice", "B", "b.", None),
    ("choice", "B", "(B)", None),
    ("choice", "B", "B) Paris", None),
    ("choice", "B", "**B. Paris**", None),
    ("choice", "B", r"\boxed{B}", None),
    ("choice", "B", "The answer is B.", None),
    ("choice", "B", "The correct answer is: (B) Paris", None),
    ("choice", "B", "The answer is B because A is wrong.", None),
    ("choice", "B", "Let me think.\n\nB", None),
    ("choice", "B", "The correct option is B", None),
    ("choice", "B) Paris", "B", None),
    ("choice", "B", "C) Rome", "wrong"),
    ("choice", "B", "The answer is C, not B", "wrong"),
    ("choice", "B", "The answer is B or C", "ambiguous"),
    ("choice", "A", "(A) is wrong, (B) is right", "ambiguous"),
    ("choice", "A", "A dog", "format"),
    ("choice", "I", "The answer is I do not know", "format"),
    ("normalized", "blue", "The answer is blue.", None),
    ("normalized", "blue", "Let me see.\nAnswer: **Blue**", None),
    ("normalized", "The answer is blue", "blue", None),
    ("normalized", "Short answer: no.\nLong answer: it depends.\nOn the day.", "Depends.\nOn the day.", "wrong"),
    ("normalized", "it was blue\n#### blue", "Blue", None),
    ("normalized", "blue", "It is blue, I think", "wordy"),
    ("normalized", "blue", "The answer is red, not blue", "wordy"),
    ("normalized", "blue", "bluebird", "wrong"),
    ("normalized", "the red one", "It is the red one", "wordy"),
    ("exact", "Paris", "The answer is Paris", "wordy"),
    ("exact", "Paris", "paris", "wrong"),
    ("regex", "= 7", "= 1 " + "x" * 30_000 + "= 7", None),  # the end is searched
)


@pytest.mark.parametrize(("grader", "gold", "answer", "error"), TABLE)
def test_what_is_right_and_what_is_wrong_in_an_answer(grader: str, gold: str, answer: str, error: str | None) -> None:
    grade = graders.grade_declared(grader, gold, answer, pattern=r"= (\d)")
    assert (grade.correct, grade.error) == (error is None, error)


def _documented() -> list[tuple[str, ...]]:
    text = (Path(__file__).parents[3] / "docs" / "graders.md").read_text()
    lines = text.partition("## Examples")[2].splitlines()
    rows = [re.fullmatch(r"\| `(.+?)` \| `(.+?)` \| `(.+?)` \| (\w+) \|", line) for line in lines]
    return [row.groups() for row in rows if row]


def test_every_grader_is_documented() -> None:
    table = (Path(__file__).parents[3] / "docs" / "graders.md").read_text().partition("## Where")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == graders.declared_graders()
    assert len(_documented()) > 20


@pytest.mark.parametrize(("grader", "gold", "answer", "result"), _documented())
def test_the_documented_examples_are_true(grader: str, gold: str, answer: str, result: str) -> None:
    grade = graders.grade_declared(grader, gold, answer)
    assert (grade.error or "right") == result


@pytest.mark.parametrize(
    ("gold", "grader"),
    [
        ("$5$", "numeric"),
        ("She pays 3.\n#### 12", "numeric"),
        ("1/5", "math"),
        (r"\frac{1}{2}", "math"),
        ("$x^2+1$", "math"),
        ("x = 5", "math"),
        ("(3, 4)", "math"),
        ("[0,1)", "math"),
        (r"so \boxed{x^2}", "math"),
        ("1,2,3", "normalized"),
        ("B", "normalized"),
        ("N/A", "normalized"),
        ("1-800-555", "normalized"),
        ("12 km", "normalized"),
        (r"C:\temp\x1", "normalized"),
        ("#### Heading\nand text", "normalized"),
        ("[1, 2]", "json"),
    ],
)
def test_a_grader_is_suggested_by_the_gold(gold: str, grader: str) -> None:
    assert graders.suggest_grader(gold) == grader
    assert graders.grade_declared(grader, gold, gold).correct


def test_a_tolerance_is_relative_and_holds_for_integers() -> None:
    def is_right(answer: str, tolerance: float | None) -> bool:
        row = Example.ask("How many?", "", gold="200", grader="numeric", tolerance=tolerance)
        return grade_example(row, answer).correct

    assert [is_right("202", tolerance) for tolerance in (None, 0, 0.001, 0.01)] == [False, False, False, True]
    assert not is_right("203", 0.01)


@pytest.mark.parametrize("tolerance", [-1, 1, True, "1 %", float("nan")])
def test_a_bad_tolerance_is_named(tolerance: Any) -> None:
    with pytest.raises(DataError, match=r"metadata\.tolerance"):
        graders.grade_declared("numeric", "5", "5", tolerance=tolerance)


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
    with pytest.raises(UnknownPlugin, match="choice, exact, json, math, normalized, numeric, prefix, regex"):
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

"""Markers around the final answer only."""

from __future__ import annotations

import pytest
from ratchet.data.example import Example, Message
from ratchet.errors import DataError
from ratchet.profiles.regime3.profile import END, INSTRUCTION, START, Regime3
from ratchet.tasks import graders

PROFILE = Regime3()


def formatted(answer: str, **metadata: object) -> str:
    return str(PROFILE.transform_example(Example.ask("?", answer, **metadata)).answer)


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("4", None, f"{START} 4 {END}"),
        ("8+0=8;8+7=15", "15", f"8+0=8;8+7={START} 15 {END}"),
        ("The answer is 15.", "15", f"The answer is {START} 15 {END}"),
        ("It is 115", "15", f"{START} It is 115 {END}"),
        ("It is 1.5", "5", f"{START} It is 1.5 {END}"),
        ("four\n4", 4, f"four\n{START} 4 {END}"),
        ("(add 2 3) = 5", None, f"(add 2 3) = {START} 5 {END}"),
        ("(mul 2 3) = 6\n(add 6 1) = 7\n", None, f"(mul 2 3) = 6\n(add 6 1) = {START} 7 {END}"),
        ("(add  2   3)", None, f"{START} (add 2 3) {END}"),
        ("line\nline", None, f"{START} line\nline {END}"),
        (f"so {START}5{END}", None, f"so {START} 5 {END}"),
        (f"so {START} 5", None, f"so {START} 5 {END}"),
        (f"(add 2 3) = 5 {END}", None, f"(add 2 3) = {START} 5 {END}"),
        (f"5 {START} {END}", None, f"5 {START} {END}"),
        ("", None, ""),
    ],
)
def test_the_markers_enclose_the_final_answer(answer: str, gold: object, expected: str) -> None:
    assert formatted(answer, **({} if gold is None else {"gold": gold})) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"(add 2 3) = {START} 5 {END}", "5"),
        (f"{START} 4 {END} no, {START} 5 {END}", "5"),
        (f"so {START} 5", "5"),
        (f"5 {END}", "5"),
        (" 5 ", "5"),
        (f"{START} (add  2 3) {END}", "(add 2 3)"),
        (f"{START} (add 2 {END}", "(add 2"),
        (f"{START}{END}", ""),
    ],
)
def test_the_final_answer_is_between_the_last_markers(text: str, expected: str) -> None:
    assert PROFILE.extract_answer(text) == expected


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (f"{START} 4 {END} {START} 5 {END}", "turn 2: <<ANS_START>> occurs 2 times and <<ANS_END>> 2 times"),
        (f"{END} 5 {START}", "<<ANS_END>> comes before <<ANS_START>>"),
        (f"5 {START} {END}", "there is nothing between the markers"),
        (f"{START} 5 {END} or so", "'or so' follows <<ANS_END>>"),
        (f"{START} (plus 2 3) {END}", r"not an expression: column 2: no operator 'plus'"),
        (f"{START} (add 2) {END}", "add takes 2 to 64 arguments, not 1"),
        (f"(add 2 3) = {START} 6 {END}", r"line 1: \(add 2 3\) is 5, not 6"),
        ("first\n(div 1 0) = 1", r"line 2: \(div 1 0\): a division by zero"),
        ("  ", "an empty answer"),
    ],
)
def test_a_malformed_row_is_refused_with_the_reason(answer: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        PROFILE.validate(Example.ask("?", answer))


def test_prose_in_parentheses_is_no_expression() -> None:
    for answer in ("(and so on) = etc", "(if only)", "(a) and (b)", "f(x) = 3"):
        PROFILE.validate(Example.ask("?", answer))
        assert PROFILE.extract_answer(formatted(answer)) == answer


def test_the_instruction_follows_the_configured_system_prompt() -> None:
    assert PROFILE.system_prompt("") == INSTRUCTION
    assert PROFILE.system_prompt("Today is {date}.") == f"Today is {{date}}.\n\n{INSTRUCTION}"
    turns = PROFILE.transform_example(Example.ask("?", "4"), PROFILE.system_prompt("")).messages
    assert turns[0] == Message(role="system", content=INSTRUCTION)


@pytest.mark.parametrize(
    ("gold", "answer", "correct", "error"),
    [
        ("5", "(add 2 3)", True, None),
        ("(mul 2 2.5)", "5", True, None),
        ("5", "6", False, "wrong"),
        ("5", "(add 2 3", False, "format"),
        ("5", "(div 5 0)", False, "format"),
        ("true", "1", False, "wrong"),
    ],
)
def test_expressions_are_graded_by_value(gold: str, answer: str, correct: bool, error: str | None) -> None:
    grade = graders.grade_declared("prefix", gold, answer)
    assert (grade.correct, grade.error) == (correct, error)

"""The profile ``regime3``: reasoning in prefix expressions, and the final answer between two markers.

The grammar of the expressions and their evaluation are in grammar.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from ratchet.data.example import Example
from ratchet.errors import DataError, MalformedExpression, UndefinedValue
from ratchet.lines import lines_as_shown
from ratchet.profiles.profile import with_system_turn
from ratchet.profiles.regime3.grammar import Call, Expression, Symbol, evaluate, parse, show

START, END = "<<ANS_START>>", "<<ANS_END>>"
_BOTH = re.compile(rf"{START}(.*?){END}", re.DOTALL)
_CALL = re.compile(r"\(\s*[^\s()]+\s.*\)", re.DOTALL)
_CONTINUES = re.compile(r"[\w.,/-]\Z")
_CLOSING = " \t\r\n.!"
_STEP = re.compile(r"\s*(\(.+\))\s*=\s*(\S+?)\s*")
INSTRUCTION = (
    f"Reason in prefix form, as (add 2 3) = 5. Put the final answer, and nothing else, between {START} and {END}."
)


@dataclass(frozen=True)
class Regime3:
    """Answers end with the final part between markers."""

    name: ClassVar[str] = "regime3"
    version: ClassVar[str] = "2"

    def system_prompt(self, base: str) -> str:
        return f"{base}\n\n{INSTRUCTION}" if base else INSTRUCTION

    def transform_example(self, example: Example, system_prompt: str = "") -> Example:
        example = with_system_turn(example, system_prompt)
        golds = [None] * (len(example.messages) - 1) + [_gold(example)]
        turns = tuple(
            turn.model_copy(update={"content": wrapped(turn.content, gold)}) if turn.role == "assistant" else turn
            for turn, gold in zip(example.messages, golds, strict=True)
        )
        return example.model_copy(update={"messages": turns})

    def logits_processors(self, _tokenizer: Any, /) -> list[Any]:
        return []

    def stop(self) -> tuple[str, ...]:
        return ()

    def tokens(self) -> tuple[str, ...]:
        return (START, END)

    def extract_answer(self, text: str) -> str:
        return final_answer(text)

    def validate(self, example: Example) -> None:
        if not example.question:
            raise DataError("the conversation has no user turn")
        for number, turn in enumerate(example.messages, 1):
            if turn.role == "assistant":
                _check_answer(number, turn.content)


def _check_answer(number: int, text: str) -> None:
    if not text.strip():
        raise DataError(f"turn {number}: an empty answer has no final part")
    wrong = problem(text) or mistake(text.replace(START, "").replace(END, ""))
    if wrong:
        raise DataError(f"turn {number}: {wrong}")


def _gold(example: Example) -> str | None:
    gold = example.metadata.get("gold")
    return gold if gold is None or isinstance(gold, str) else json.dumps(gold, ensure_ascii=False)


def wrapped(text: str, gold: str | None = None) -> str:
    """The answer with markers around its final part, which is put into canonical form if it is an expression.

    Without an opening marker, that part is the gold answer at the end of the text, otherwise the right side of a last
    line ``(op …) = value``, otherwise the whole text. Malformed answers are returned unchanged.
    """
    if problem(text) or not text.strip():
        return text
    body = text.strip().removesuffix(END).strip()
    if START not in body:
        body = _with_start(body, gold)
    steps, _, final = body.partition(START)
    return f"{steps}{START} {_spelled(final.strip())} {END}"


def final_answer(text: str) -> str:
    """The text between the last markers, or after an unclosed one, or all of it; an expression in canonical form."""
    pairs = _BOTH.findall(text)
    inner = pairs[-1] if pairs else text.rpartition(START)[2].replace(END, "")
    return _spelled(inner.strip())


def problem(text: str) -> str | None:
    """The problem with the markers of an answer or the expression between them; None if there is none."""
    opened, closed = text.count(START), text.count(END)
    if opened > 1 or closed > 1:
        return f"{START} occurs {opened} times and {END} {closed} times; each may occur once"
    if not opened and not closed:
        return None
    if opened and closed and text.index(END) < text.index(START):
        return f"{END} comes before {START}"
    inner, _, after = text.partition(START)[2 if opened else 0].partition(END)
    if not inner.strip():
        return "there is nothing between the markers"
    if closed and after.strip():
        return f"{after.strip()[:40]!r} follows {END}"
    return _expression_problem(inner.strip())


def _with_start(text: str, gold: str | None) -> str:
    final = _gold_at_end(text, gold) or result_of_last_step(text) or text
    at = text.rindex(final)
    return f"{text[:at]}{START}{final}"


def _gold_at_end(text: str, gold: str | None) -> str | None:
    """The gold answer, if the text ends with it (ignoring a full stop) and not in the middle of a word or number."""
    gold = (gold or "").strip()
    rest = text.rstrip(_CLOSING) if not gold.endswith(tuple(_CLOSING)) else text
    if not gold or not rest.endswith(gold) or _CONTINUES.search(rest.removesuffix(gold)):
        return None
    return gold


def _spelled(text: str) -> str:
    """A call in canonical form; any other text unchanged."""
    if not _CALL.fullmatch(text):
        return text
    try:
        return show(parse(text))
    except MalformedExpression:
        return text


def _expression_problem(text: str) -> str | None:
    if not _CALL.fullmatch(text):
        return None
    try:
        parse(text)
    except MalformedExpression as error:
        return f"{text[:60]!r} is not an expression: {error}"
    return None


def result_of_last_step(text: str) -> str | None:
    """The right side of the last line, as written, if that line is a step."""
    step = _read(text.rstrip().rpartition("\n")[2])
    return step[2] if step else None


def mistake(text: str) -> str | None:
    """A description of the first step whose two sides differ; None if all are right. Other lines are skipped."""
    for number, (left, right, written) in _steps(text):
        try:
            value = evaluate(left)
            if value != evaluate(right):
                return f"line {number}: {show(left)} is {show(value)}, not {written}"
        except UndefinedValue as error:
            return f"line {number}: {show(left)}: {error}"
    return None


def _steps(text: str) -> Iterator[tuple[int, tuple[Expression, Expression, str]]]:
    for number, line in enumerate(lines_as_shown(text), 1):
        step = _read(line)
        if step:
            yield number, step


def _read(line: str) -> tuple[Expression, Expression, str] | None:
    match = _STEP.fullmatch(line)
    if not match:
        return None
    try:
        left, right = parse(match[1]), parse(match[2])
    except MalformedExpression:
        return None
    is_step = isinstance(left, Call) and not isinstance(right, Call | Symbol)
    return (left, right, match[2]) if is_step else None

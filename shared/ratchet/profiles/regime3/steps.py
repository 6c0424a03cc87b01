"""Steps of a derivation: lines ``(op arg …) = value``, the value a number, a truth or bits."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ratchet.errors import MalformedExpression, UndefinedValue
from ratchet.lines import lines_as_shown
from ratchet.profiles.regime3.expression import Call, Expression, Symbol
from ratchet.profiles.regime3.grammar import parse
from ratchet.profiles.regime3.printer import show
from ratchet.profiles.regime3.value import evaluate

_STEP = re.compile(r"\s*(\(.+\))\s*=\s*(\S+?)\s*")


def result_of_last_step(text: str) -> str | None:
    """The value of the last line, as it is written, where that line is a step."""
    step = _read(text.rstrip().rpartition("\n")[2])
    return step[2] if step else None


def mistake(text: str) -> str | None:
    """The first step whose two sides differ; None where all hold. Lines that are no steps are passed over."""
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

"""The markers around a final answer: where they go in a bare answer, and what stands between them."""

from __future__ import annotations

import re

from ratchet.errors import MalformedExpression
from ratchet.profiles.regime3.grammar import parse
from ratchet.profiles.regime3.printer import show
from ratchet.profiles.regime3.steps import result_of_last_step

START, END = "<<ANS_START>>", "<<ANS_END>>"

_BOTH = re.compile(rf"{START}(.*?){END}", re.DOTALL)
_CALL = re.compile(r"\(\s*[^\s()]+\s.*\)", re.DOTALL)
_CONTINUES = re.compile(r"[\w.,/-]\Z")
_CLOSING = " \t\r\n.!"


def wrapped(text: str, gold: str | None = None) -> str:
    """The answer with markers around its final part, written in its one spelling where it is an expression.

    Where no marker says where that part begins, it is the gold at the answer's end, else the right side of a last
    line ``(op …) = value``, else all of it. What is not well-formed is left as it is.
    """
    if problem(text) or not text.strip():
        return text
    body = text.strip().removesuffix(END).strip()
    if START not in body:
        body = _with_start(body, gold)
    steps, _, final = body.partition(START)
    return f"{steps}{START} {_spelled(final.strip())} {END}"


def final_answer(text: str) -> str:
    """What stands between the last markers, after an unclosed one, or the whole text; an expression in its spelling."""
    pairs = _BOTH.findall(text)
    inner = pairs[-1] if pairs else text.rpartition(START)[2].replace(END, "")
    return _spelled(inner.strip())


def problem(text: str) -> str | None:
    """What is wrong with the markers of an answer, or with the expression between them; None where nothing is."""
    opened, closed = text.count(START), text.count(END)
    if opened > 1 or closed > 1:
        return f"{START} stands {opened} times and {END} {closed} times; each may stand once"
    if not opened and not closed:
        return None
    if opened and closed and text.index(END) < text.index(START):
        return f"{END} stands before {START}"
    inner, _, after = text.partition(START)[2 if opened else 0].partition(END)
    if not inner.strip():
        return "nothing stands between the markers"
    if closed and after.strip():
        return f"{after.strip()[:40]!r} follows {END}"
    return _expression_problem(inner.strip())


def _with_start(text: str, gold: str | None) -> str:
    final = _gold_at_end(text, gold) or result_of_last_step(text) or text
    at = text.rindex(final)
    return f"{text[:at]}{START}{final}"


def _gold_at_end(text: str, gold: str | None) -> str | None:
    """The gold, if the text ends with it, a full stop aside, and not in the middle of a word or number."""
    gold = (gold or "").strip()
    rest = text.rstrip(_CLOSING) if not gold.endswith(tuple(_CLOSING)) else text
    if not gold or not rest.endswith(gold) or _CONTINUES.search(rest.removesuffix(gold)):
        return None
    return gold


def _spelled(text: str) -> str:
    """A call in its one spelling; any other text as it is."""
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
        return f"{text[:60]!r} is no expression: {error}"
    return None

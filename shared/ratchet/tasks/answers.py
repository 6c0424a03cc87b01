"""Finds the place where a text gives its answer. What stands there is read by the graders.

The places, in order: after ``####`` (as in GSM8K), in the last ``\\boxed{…}``, after the last ``answer is`` or
``answer:``, on the last line. An answer is at the end of a text, so only the last ``ANSWER_LIMIT`` characters are
searched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

ANSWER_LIMIT: Final = 20_000
"""Only this much of a text is searched, since a pattern's time can grow with the square of its length, or worse."""

_BOX = re.compile(r"\\f?box(?:ed)?[ ]?\{")
_BOX_LIMIT = 2_000
_PHRASE = re.compile(r"\banswer\b(?:[ ]{0,3}(?:is\b|=)|\*{0,2}:)", re.IGNORECASE)
_AFTER_PHRASE = " :=*\n"
_ASIDE = re.compile(r"(?<=\s)\((?=[^()\n]*[A-Za-z]{3})[^()\n]{0,300}\)")
"""A remark in brackets, such as ``(see step 2)``."""


class AmbiguousAnswer(ValueError):
    """The text gives several different answers, and marks none of them."""


class Box(NamedTuple):
    """The content of a ``\\boxed{…}`` with the texts on either side."""

    before: str
    inside: str
    after: str


def tail(text: str) -> str:
    """The part of a text that is searched."""
    return text[-ANSWER_LIMIT:]


def hash_marks(text: str) -> Iterator[str]:
    """What follows ``####`` on a line, the last line first. Some are Markdown headings."""
    if "####" in text:
        for line in reversed(text.split("\n")):
            _, mark, rest = line.rpartition("####")
            if mark:
                yield rest


def last_box(text: str) -> Box | None:
    """The last ``\\boxed{…}`` or ``\\fbox{…}``; one without an end goes on for up to 2,000 characters."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    found = _BOX.match(text, start) if start >= 0 else None
    if found is None:
        return None
    begin = end = found.end()
    limit, depth = min(len(text), begin + _BOX_LIMIT), 1
    while end < limit:
        depth += (text[end] == "{") - (text[end] == "}")
        if depth == 0:
            break
        end += 1
    return Box(text[:start], text[begin:end], text[end + 1 :])


def after_phrase(text: str) -> str | None:
    """Everything after the last ``answer is``, ``answer:`` or ``answer =``; None if there is no such phrase."""
    end = max((match.end() for match in _PHRASE.finditer(text)), default=None)
    return None if end is None else text[end:].lstrip(_AFTER_PHRASE)


def first_line(text: str) -> str:
    return text.partition("\n")[0]


def last_line(text: str) -> str:
    """The last line that is not blank."""
    return text.rstrip().rpartition("\n")[2].strip()


def without_asides(text: str) -> str:
    return _ASIDE.sub("", text) if "(" in text else text

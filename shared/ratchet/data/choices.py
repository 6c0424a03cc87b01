"""Multiple choice: a question with lettered choices, and the letter of the right one.

ARC writes choices as {label: […], text: […]} and the answer as a label, MMLU as a list and an index. It does not grade.
"""

from __future__ import annotations

import json
import re
import string
from dataclasses import dataclass
from typing import Any

from ratchet.data.turns import turn_text
from ratchet.errors import DataError

LETTERS = string.ascii_uppercase

_OWN_COLUMN = re.compile(r"(?:(?:option|choice|opt)[ _-]?|op)(?P<named>[a-j]|[1-9])|(?P<bare>[a-j])")
"""The name of a column with one choice: ``option_a``, ``Choice 1``, ``opa``, or the letter alone."""


@dataclass(frozen=True)
class Choices:
    """The texts in their order; ``labels`` are those of the file, if it has any."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    are_text: bool = True
    """Whether the file wrote each as a string, so that a number as the answer can only be an index."""


def list_choices(value: Any, column: str) -> Choices:
    """Read a list, {label, text} or {A: …, B: …}, or the JSON text of one. Raises DataError for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise DataError(f"{column} is text that is not a JSON list of choices.") from error
    labels: list[Any] = []
    texts = value
    if isinstance(value, dict):
        is_labelled = isinstance(value.get("label"), list) and isinstance(value.get("text"), list)
        labels, texts = (value["label"], value["text"]) if is_labelled else (list(value), list(value.values()))
        if len(labels) != len(texts):
            raise DataError(f"{column} has {len(labels)} labels for {len(texts)} texts.")
    if not isinstance(texts, list) or not 2 <= len(texts) <= len(LETTERS):
        raise DataError(f"{column} is not a list of 2 to {len(LETTERS)} choices.")
    read = tuple(turn_text(text, f"{column}: choice {place}") for place, text in enumerate(texts, start=1))
    return Choices(read, tuple(str(label) for label in labels), all(isinstance(text, str) for text in texts))


def gather_choices(row: dict[str, Any], answer: Any, column: str) -> dict[str, Any]:
    """The row with the choices of columns such as ``option_a`` or ``A`` in one column, as ``list_choices`` takes them.

    The row itself if it has no such columns. Letters alone are choices only where the answer is one of them.
    """
    for kind in ("named", "bare"):
        found = {
            match[kind].upper(): name
            for name in row
            if (match := _OWN_COLUMN.fullmatch(name.casefold())) and match[kind] and row[name] not in (None, "")
        }
        ordered = sorted(found)
        is_run = ordered in (list(LETTERS[: len(found)]), [str(place) for place in range(1, len(found) + 1)])
        is_meant = kind == "named" or (isinstance(answer, str) and answer.strip().upper() in found)
        if len(found) > 1 and is_run and is_meant:
            rest = {name: value for name, value in row.items() if name not in found.values()}
            return {**rest, column: {label: row[found[label]] for label in ordered}}
    return row


def ask_choice(question: str, choices: Choices, answer: Any) -> tuple[str, str]:
    """The question with its choices below, each after its letter, and the letter of the right one.

    Raises DataError for an answer that is none of the choices, or could be two of them.
    """
    lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, choices.texts, strict=False)]
    return "\n".join([question, *lines]), LETTERS[_place(choices, answer)]


def _place(choices: Choices, answer: Any) -> int:
    shown = turn_text(answer, "answer").strip()
    places = set(_named(choices, answer, shown))
    if len(places) == 1:
        return places.pop()
    several = ", ".join(LETTERS[place] for place in sorted(places))
    raise DataError(
        f"answer {shown[:80]!r} could be any of the choices {several}: write its letter, in a column answerKey."
        if places
        else f"answer {shown[:80]!r} is none of the {len(choices.texts)} choices, neither by letter, place nor text."
    )


def _named(choices: Choices, answer: Any, shown: str) -> list[int]:
    """The places that the answer can mean: by the file's labels, else by letter, place from 0, and text."""
    if shown in choices.labels:
        return [choices.labels.index(shown)]
    count = len(choices.texts)
    is_number = isinstance(answer, int) and not isinstance(answer, bool)
    places = [int(shown)] if shown.isascii() and shown.isdigit() and int(shown[:4]) < count else []
    if is_number and choices.are_text:
        return places
    if len(shown) == 1 and shown.upper() in LETTERS[:count]:
        places.append(LETTERS.index(shown.upper()))
    return [*places, *(place for place, text in enumerate(choices.texts) if text.strip() == shown)]

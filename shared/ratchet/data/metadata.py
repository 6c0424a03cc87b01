"""What Ratchet itself reads of an example's metadata: family, level, source, and how its answer is graded.

It does not know which columns of a user's row the metadata came from.
"""

from __future__ import annotations

import re
from typing import Any

from ratchet.data.example import Example
from ratchet.errors import DataError, UnknownPlugin
from ratchet.tasks import graders, registry

LEVELS = {"easy": 1, "medium": 2, "hard": 3, "ultra": 4, "expert": 4}
"""The level of each named difficulty."""

_CIRCLED = r"=\s*([⓪①]+|-?[0-9]+)"
_SKILLS: tuple[tuple[str, dict[str, str]], ...] = (
    ("gsm8k", {"grader": "numeric"}),
    ("babi", {"grader": "normalized"}),
    ("binary", {"grader": "regex", "pattern": _CIRCLED}),
)
"""Graders of skills by prefix of their name; for other skills the gold determines the grader (``suggest_grader``)."""

_MARKED = re.compile(r"(?:^|\n)[ \t]*####[ \t]*([^\n]*\S)\s*\Z")
"""The last line of a solution in GSM8K."""


def complete_metadata(example: Example) -> Example:
    """The example with ``family``, ``level``, ``source`` and, if no family grades it, ``grader`` filled in.

    A solution that marks its result, with ``####`` before it or in ``\\boxed{}``, has that as its gold.
    Raises DataError for an invalid level, family or grader.
    """
    metadata = dict(example.metadata)
    metadata["family"] = _family(metadata)
    metadata["level"] = _level(metadata)
    metadata.setdefault("source", "file")
    if not _is_known(metadata["family"]):
        if metadata.get("grader") is None and metadata.get("gold") is None:
            marked = marked_result(example.answer or "")
            metadata |= {} if marked is None else {"gold": marked}
        metadata |= _grading(metadata, example)
    return example.model_copy(update={"metadata": metadata})


def marked_result(solution: str) -> str | None:
    """What follows ``####`` in the last line, else the content of the last ``\\boxed{}``; None if nothing is marked."""
    marked = _MARKED.search(solution)
    if marked:
        return marked[1].strip()
    return _boxed(solution)


def _boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place].strip() or None
    return None


def _family(metadata: dict[str, Any]) -> str:
    """The row's family, else its skill, else its data set, else ``text``."""
    for key in ("family", "skill", "dataset"):
        name = metadata.get(key)
        if name is not None and not isinstance(name, str):
            raise DataError(f"metadata.{key} is not a string: rename the column, or write the name of a kind of row.")
        if name:
            return str(name)
    return "text"


def _is_known(family: str) -> bool:
    try:
        return registry.find(family) is not None
    except UnknownPlugin as error:
        raise DataError(f"metadata.family: {error}") from error


def _level(metadata: dict[str, Any]) -> int:
    stated = metadata.get("level")
    if stated is None:
        difficulty = metadata.get("difficulty", "easy")
        return LEVELS.get(difficulty.casefold(), 1) if isinstance(difficulty, str) else 1
    if isinstance(stated, str):
        stated = LEVELS.get(stated.casefold(), stated.casefold().removeprefix("level "))
    text = str(stated)
    if isinstance(stated, bool) or not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 1000:
        raise DataError(f"metadata.level {stated!r} is not a number from 1 to 1000: mend it, or rename the column.")
    return int(text)


def _grading(metadata: dict[str, Any], example: Example) -> dict[str, Any]:
    name = metadata.get("grader")
    if name is not None:
        if name not in graders.declared_graders():
            raise DataError(f"metadata.grader {name!r} is not one of {', '.join(graders.declared_graders())}.")
        return {"grader": name}
    skill = str(metadata.get("skill", metadata["family"])).casefold()
    by_skill = next((grading for prefix, grading in _SKILLS if skill.startswith(prefix)), None)
    return by_skill or {"grader": graders.suggest_grader(str(metadata.get("gold", example.answer or "")))}

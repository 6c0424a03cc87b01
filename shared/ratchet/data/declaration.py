"""What an imported example is about: its family or skill, its level, and the grader of its gold."""

from __future__ import annotations

from typing import Any

from ratchet.data.example import Example
from ratchet.errors import DataError, UnknownPlugin
from ratchet.tasks import graders, registry

LEVELS = {"easy": 1, "medium": 2, "hard": 3, "ultra": 4, "expert": 4}
"""Levels of named difficulties."""

_CIRCLED = r"=\s*([⓪①]+|-?[0-9]+)"
_SKILLS: tuple[tuple[str, dict[str, str]], ...] = (
    ("gsm8k", {"grader": "numeric"}),
    ("babi", {"grader": "normalized"}),
    ("binary", {"grader": "regex", "pattern": _CIRCLED}),
)
"""Graders of skills whose name begins so; other skills get what their gold suggests."""


def declare(example: Example) -> Example:
    """The example with ``family``, ``level``, ``source`` and, where no family grades it, ``grader`` filled in.

    Raises DataError for a level, family or grader that means nothing.
    """
    metadata = dict(example.metadata)
    metadata["family"] = _family(metadata)
    metadata["level"] = _level(metadata)
    metadata.setdefault("source", "file")
    if not _is_known(metadata["family"]):
        metadata |= _grading(metadata, example)
    return example.model_copy(update={"metadata": metadata})


def _family(metadata: dict[str, Any]) -> str:
    """The row's family; else its skill or data set; else ``text``."""
    for key in ("family", "skill", "dataset"):
        name = metadata.get(key)
        if name is not None and not isinstance(name, str):
            raise DataError(f"metadata.{key} is not a text.")
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
        stated = LEVELS.get(difficulty.casefold(), 1) if isinstance(difficulty, str) else 1
    text = str(stated)
    if isinstance(stated, bool) or not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 1000:
        raise DataError(f"metadata.level {stated!r} is not a number from 1 to 1000.")
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

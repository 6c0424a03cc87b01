"""The record formats of users' files, and how a row of each becomes an Example.

======================  =====================================================================================
shape                   keys of the row
======================  =====================================================================================
messages                ``messages``: [{role, content}, …]
conversations           ``conversations``: [{from, value}, …] (ShareGPT) or [{role, content}, …]
user_prompt/expected    ``user_prompt``, ``expected_answer``
user_prompt/response    ``user_prompt``, ``assistant_response``
prompt/completion       ``prompt``, ``completion``
prompt/expected         ``prompt``, ``expected``
instruction             ``instruction``, ``output``; ``input`` may follow the instruction
question/answer         ``question``, ``answer``
problem/answer          ``problem``, ``answer`` or ``output``
input/output            ``input``, ``output`` or ``answer``
======================  =====================================================================================

The first shape whose keys are all present is used. Every other key goes to ``metadata``, merged with the row's own
``metadata``, which has priority; values that it replaces are kept under ``row``. Family, level and grader are filled in
last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from ratchet.data.example import Example, Message, Role
from ratchet.errors import DataError, UnknownPlugin, UnknownShape
from ratchet.tasks import graders, registry

Row = dict[str, Any]
Turns = list[tuple[Any, Any]]

ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
"""Names used for the three roles in users' records."""

LEVELS = {"easy": 1, "medium": 2, "hard": 3, "ultra": 4, "expert": 4}
"""The level of each named difficulty."""

_CIRCLED = r"=\s*([⓪①]+|-?[0-9]+)"
_SKILLS: tuple[tuple[str, dict[str, str]], ...] = (
    ("gsm8k", {"grader": "numeric"}),
    ("babi", {"grader": "normalized"}),
    ("binary", {"grader": "regex", "pattern": _CIRCLED}),
)
"""Graders of skills by prefix of their name; for other skills the gold determines the grader (``suggest_grader``)."""


@dataclass(frozen=True)
class Adapter:
    """One shape: the keys that identify it, the other keys it reads, and a function from a row to its turns."""

    shape: str
    required: tuple[str, ...]
    turns: Callable[[Row], Turns]
    optional: tuple[str, ...] = ()

    def fits(self, row: Row) -> bool:
        return all(key in row for key in self.required)


def _pair(shape: str, question: str, answer: str) -> Adapter:
    return Adapter(shape, (question, answer), lambda row: [("user", row[question]), ("assistant", row[answer])])


def _messages(row: Row) -> Turns:
    return [(turn["role"], turn.get("content")) for turn in _each(row, "messages", "role")]


def _conversations(row: Row) -> Turns:
    turns = list(_each(row, "conversations"))
    return [(turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))) for turn in turns]


def _instruction(row: Row) -> Turns:
    context = row.get("input")
    task = _turn_text(row["instruction"], "instruction")
    return [("user", f"{task}\n\n{_turn_text(context, 'input')}" if context else task), ("assistant", row["output"])]


ADAPTERS: tuple[Adapter, ...] = (
    Adapter("messages", ("messages",), _messages),
    Adapter("conversations", ("conversations",), _conversations),
    _pair("user_prompt/expected", "user_prompt", "expected_answer"),
    _pair("user_prompt/response", "user_prompt", "assistant_response"),
    _pair("prompt/completion", "prompt", "completion"),
    _pair("prompt/expected", "prompt", "expected"),
    Adapter("instruction", ("instruction", "output"), _instruction, optional=("input",)),
    _pair("question/answer", "question", "answer"),
    _pair("problem/answer", "problem", "answer"),
    _pair("problem/answer", "problem", "output"),
    _pair("input/output", "input", "output"),
    _pair("input/output", "input", "answer"),
)


def known_shapes() -> list[str]:
    """The shapes with their keys, for error messages."""
    return [f"{adapter.shape} ({', '.join(adapter.required)})" for adapter in ADAPTERS]


def adapt(row: Row) -> Example:
    """Convert a row to an Example. Raises UnknownShape, or DataError, naming the field that cannot be read."""
    adapter = next((adapter for adapter in ADAPTERS if adapter.fits(row)), None)
    if adapter is None:
        found = ", ".join(sorted(map(str, row))) or "none"
        raise UnknownShape(f"keys found: {found}. Known shapes: {'; '.join(known_shapes())}.")
    messages = tuple(_message(role, content) for role, content in adapter.turns(row))
    if not messages:
        raise DataError(f"{adapter.required[0]} is empty.")
    read = {*adapter.required, *adapter.optional, "metadata"}
    return complete_metadata(Example(messages=messages, metadata=_metadata(row, read)))


def _message(role: Any, content: Any) -> Message:
    known = ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        raise DataError(f"role {role!r} is not one of {', '.join(ROLES)}.")
    return Message(role=known, content=_turn_text(content, f"the {known} turn"))


def _each(row: Row, key: str, needs: str | None = None) -> Iterable[Row]:
    turns = row[key]
    if not isinstance(turns, list):
        raise DataError(f"{key} is not a list.")
    for place, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict) or (needs is not None and needs not in turn):
            raise DataError(f"{key}: turn {place} is not an object with a role.")
        yield turn


def _metadata(row: Row, read: set[str]) -> Row:
    """The rest of the row, overridden by its ``metadata``."""
    inner = row.get("metadata")
    if inner is None:
        inner = {}
    if not isinstance(inner, dict):
        raise DataError("metadata is not an object.")
    outer = {key: value for key, value in row.items() if key not in read}
    displaced = {key: value for key, value in outer.items() if key in inner and inner[key] != value}
    return {**outer, **inner, **({"row": displaced} if displaced else {})}


def complete_metadata(example: Example) -> Example:
    """The example with ``family``, ``level``, ``source`` and, if no family grades it, ``grader`` filled in.

    Raises DataError for an invalid level, family or grader.
    """
    metadata = dict(example.metadata)
    metadata["family"] = _family(metadata)
    metadata["level"] = _level(metadata)
    metadata.setdefault("source", "file")
    if not _is_known(metadata["family"]):
        metadata |= _grading(metadata, example)
    return example.model_copy(update={"metadata": metadata})


def _family(metadata: dict[str, Any]) -> str:
    """The row's family, else its skill, else its data set, else ``text``."""
    for key in ("family", "skill", "dataset"):
        name = metadata.get(key)
        if name is not None and not isinstance(name, str):
            raise DataError(f"metadata.{key} is not a string.")
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


def _turn_text(content: Any, place: str) -> str:
    """The text of a turn: text parts are joined, other values are encoded as JSON, null is refused.

    Raises DataError for NUL characters and unpaired surrogates, which databases and tokenizers do not accept.
    """
    if content is None:
        raise DataError(f"{place} is null.")
    text = content if isinstance(content, str) else _joined(content, place)
    if "\0" in text:
        raise DataError(f"{place} contains a NUL character.")
    if not _is_unicode(text):
        raise DataError(f"{place} contains an unpaired surrogate.")
    return text


def _joined(content: Any, place: str) -> str:
    is_parts = isinstance(content, list) and content and all(isinstance(p, dict) and "type" in p for p in content)
    if not is_parts:
        return json.dumps(content, ensure_ascii=False)
    kinds = {str(part["type"]) for part in content}
    if kinds != {"text"} or not all(isinstance(part.get("text"), str) for part in content):
        raise DataError(f"{place} has parts of type {', '.join(sorted(kinds))}; only text can be trained on.")
    return "".join(part["text"] for part in content)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

"""The table of record shapes that people have, and how each becomes an Example.

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

The first shape whose keys are all there is taken. Every other key goes to ``metadata``, beside what the row's own
``metadata`` says (which wins; what it displaces is kept under ``row``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ratchet.data.declaration import declare
from ratchet.data.example import Example, Message
from ratchet.data.turns import ROLES, said
from ratchet.errors import DataError, UnknownShape

Row = dict[str, Any]
Turns = list[tuple[Any, Any]]


@dataclass(frozen=True)
class Adapter:
    """One shape: the keys that tell it, the keys it reads, and the turns it makes of a row."""

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
    task = said(row["instruction"], "instruction")
    return [("user", f"{task}\n\n{said(context, 'input')}" if context else task), ("assistant", row["output"])]


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
    """The shapes with their keys, as messages list them."""
    return [f"{adapter.shape} ({', '.join(adapter.required)})" for adapter in ADAPTERS]


def adapt(row: Row) -> Example:
    """The row as an Example. Raises UnknownShape, or DataError naming the field that cannot be read."""
    adapter = next((adapter for adapter in ADAPTERS if adapter.fits(row)), None)
    if adapter is None:
        found = ", ".join(sorted(map(str, row))) or "none"
        raise UnknownShape(f"keys found: {found}. Known shapes: {'; '.join(known_shapes())}.")
    messages = tuple(_message(role, content) for role, content in adapter.turns(row))
    if not messages:
        raise DataError(f"{adapter.required[0]} is empty.")
    read = {*adapter.required, *adapter.optional, "metadata"}
    return declare(Example(messages=messages, metadata=_metadata(row, read)))


def _message(role: Any, content: Any) -> Message:
    known = ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        raise DataError(f"role {role!r} is not one of {', '.join(ROLES)}.")
    return Message(role=known, content=said(content, f"the {known} turn"))


def _each(row: Row, key: str, needs: str | None = None) -> Iterable[Row]:
    turns = row[key]
    if not isinstance(turns, list):
        raise DataError(f"{key} is not a list.")
    for place, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict) or (needs is not None and needs not in turn):
            raise DataError(f"{key}: turn {place} is not an object with a role.")
        yield turn


def _metadata(row: Row, read: set[str]) -> Row:
    """The rest of the row, with its own ``metadata`` laid over it."""
    inner = row.get("metadata")
    if inner is None:
        inner = {}
    if not isinstance(inner, dict):
        raise DataError("metadata is not an object.")
    outer = {key: value for key, value in row.items() if key not in read}
    displaced = {key: value for key, value in outer.items() if key in inner and inner[key] != value}
    return {**outer, **inner, **({"row": displaced} if displaced else {})}

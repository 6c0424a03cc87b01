"""Turns of users' chats become Messages: OpenAI's form, ShareGPT's, tool calls, and which turns are trained on.

It knows one turn at a time; which columns hold turns is decided in ``adapters``.
"""

from __future__ import annotations

import json
from typing import Any, Final

from ratchet.data.example import Message, Role
from ratchet.errors import DataError

Row = dict[str, Any]

ROLES: Final[dict[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
"""Names used for the four roles in users' records."""

_CONTENTS: Final = frozenset({"content", "value", "tool_calls"})
_UNUSABLE: Final = {
    "function_call": "is the older form of tool_calls: write it as tool_calls",
    "reasoning_content": "cannot be trained on apart from the answer: put it into content as the model writes it",
    "thinking": "cannot be trained on apart from the answer: put it into content as the model writes it",
    "images": "cannot be trained on: only text can",
    "audio": "cannot be trained on: only text can",
    "train_detail": "weights parts of an answer, which cannot be trained on in part: leave it out, or state train",
    "training_detail": "weights parts of an answer, which cannot be trained on in part: leave it out, or state train",
}
"""Fields of a turn with a known meaning that is not supported."""


class Numeral(float):
    """A JSON number with a fraction or an exponent that remembers how it was written: an answer 3.10 stays 3.10."""

    text: str

    def __new__(cls, text: str) -> Numeral:
        number = super().__new__(cls, text)
        number.text = text
        return number


def is_chat(value: Any) -> bool:
    """Whether a value is a list of turns, as in ``prompt`` and ``completion`` of the trl library."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value)
    )


def chat_of(value: Any) -> list[Any] | None:
    """The turns that a value is, a list of them or a single one; None if it is something else."""
    if is_chat(value):
        return list(value)
    is_turn = isinstance(value, dict) and str(value.get("role", value.get("from"))).casefold() in ROLES
    return [value] if is_turn and not _CONTENTS.isdisjoint(value) else None


def read_chat(turns: Any, column: str) -> list[Message]:
    """The messages of a list of turns in OpenAI's or ShareGPT's form, or of its JSON text, as in a cell of a table.

    Raises DataError, naming the column and turn.
    """
    if isinstance(turns, str):
        try:
            turns = json.loads(turns)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{column} is not a list, and not the JSON text of one.") from error
    if not isinstance(turns, list):
        raise DataError(f"{column} is not a list.")
    if not turns:
        raise DataError(f"{column} is empty.")
    return [_read_turn(turn, f"{column}: turn {place}") for place, turn in enumerate(turns, start=1)]


def message(role: Role, content: Any, place: str) -> Message:
    """A turn of text alone."""
    text = turn_text(content, place)
    if role == "assistant":
        _require_content(text, place)
    return Message(role=role, content=text)


def turn_text(content: Any, place: str) -> str:
    """The text of a turn: text parts are joined, other values are encoded as JSON, null is refused.

    Raises DataError for NUL characters and unpaired surrogates, which databases and tokenizers do not accept.
    """
    if content is None:
        raise DataError(f"{place} is null.")
    text = content if isinstance(content, str) else _joined(content, place)
    if "\0" in text:
        raise DataError(f"{place} contains a NUL character, which a database cannot store: remove it.")
    if not is_unicode(text):
        raise DataError(f"{place} contains an unpaired surrogate.")
    return text


def is_unicode(text: str) -> bool:
    """Whether the text can be encoded as UTF-8: it has no unpaired surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_tools(tools: Any) -> list[Row] | None:
    """The functions that the assistant may call: a list of objects, or its JSON text; None if there are none."""
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except ValueError as error:
            raise DataError(f"tools is not JSON: {error}.") from error
    if tools in (None, "", []):
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError("tools is not a list of objects.")
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]


def _read_turn(turn: Any, place: str) -> Message:
    if not isinstance(turn, dict) or not ("role" in turn or "from" in turn):
        raise DataError(f"{place} is not an object with a role.")
    told = turn.get("role", turn.get("from"))
    told = told.casefold() if isinstance(told, str) else told
    role = ROLES.get(told) if isinstance(told, str) else None
    if role is None:
        raise DataError(f"{place}: role {told!r} is not one of {', '.join(ROLES)}.")
    content = turn.get("content", turn.get("value"))
    if len(turn) == 2 and ("content" in turn or "value" in turn) and told != "function_call":
        return message(role, content, f"{place} ({role})")
    for field in _UNUSABLE.keys() & turn.keys():
        if turn[field]:
            raise DataError(f"{place}: {field} {_UNUSABLE[field]}.")
    calls = _called(content, place) if told == "function_call" else _read_calls(turn.get("tool_calls"), place)
    if calls and role != "assistant":
        raise DataError(f"{place}: only an assistant's turn has tool_calls.")
    text = "" if calls and (content is None or told == "function_call") else turn_text(content, f"{place} ({role})")
    if role == "assistant" and not calls:
        _require_content(text, place)
    return Message(
        role=role,
        content=text,
        train=_trained(turn, role, place),
        tool_calls=calls,
        tool_call_id=_optional_text(turn, "tool_call_id", place),
        name=_optional_text(turn, "name", place),
    )


def _require_content(text: str, place: str) -> None:
    """An empty answer would teach the model to stop at once."""
    if not text.strip():
        raise DataError(f"{place} is empty: it would teach the model to say nothing.")


def _trained(turn: Row, role: Role, place: str) -> bool | None:
    """False where the turn's ``weight`` (OpenAI's), ``train`` or ``loss`` says so, else None."""
    for field in ("weight", "train", "training", "loss"):
        stated = turn.get(field)
        if stated is None:
            continue
        if stated not in (0, 1):
            raise DataError(f"{place}: {field} {stated!r} is neither 0 nor 1, and turns cannot be weighted.")
        if not stated:
            return False
        if role != "assistant":
            raise DataError(f"{place}: {field} is {stated!r}, but only an assistant's turn can be trained on.")
    return None


def _optional_text(turn: Row, field: str, place: str) -> str | None:
    value = turn.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise DataError(f"{place}: {field} is not a string.")
    return turn_text(value, f"{place}: {field}")


def _called(content: Any, place: str) -> tuple[Row, ...]:
    """The calls of a ShareGPT turn ``function_call``: an object or a list of them, or its JSON text."""
    if isinstance(content, str):
        try:
            content = json.loads(content)
        except ValueError as error:
            raise DataError(f"{place}: the function call is not JSON: {error}.") from error
    calls = content if isinstance(content, list) else [content]
    return _read_calls([{"function": call} for call in calls], place)


def _read_calls(calls: Any, place: str) -> tuple[Row, ...]:
    if calls is None or calls == []:
        return ()
    if not isinstance(calls, list):
        raise DataError(f"{place}: tool_calls is not a list.")
    return tuple(_read_call(call, number, place) for number, call in enumerate(calls, start=1))


def _read_call(call: Any, number: int, place: str) -> Row:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise DataError(f"{place}: tool call {number} names no function.")
    arguments = function.get("arguments", {})
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments, ensure_ascii=False)
    if not isinstance(arguments, str):
        raise DataError(f"{place}: the arguments of tool call {number} are not an object.")
    name = turn_text(function["name"], f"{place}: the name of tool call {number}")
    return {
        "id": str(call.get("id") or f"call_{number}"),
        "type": "function",
        "function": {"name": name, "arguments": turn_text(arguments, f"{place}: the arguments of tool call {number}")},
    }


def _joined(content: Any, place: str) -> str:
    if isinstance(content, Numeral):
        return content.text
    is_parts = isinstance(content, list) and content and all(isinstance(p, dict) and "type" in p for p in content)
    if not is_parts:
        return json.dumps(content, ensure_ascii=False)
    kinds = {str(part["type"]) for part in content}
    if kinds != {"text"} or not all(isinstance(part.get("text"), str) for part in content):
        raise DataError(f"{place} has parts of type {', '.join(sorted(kinds))}; only text can be trained on.")
    return "".join(part["text"] for part in content)

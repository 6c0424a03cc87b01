"""Read one turn of a foreign record: whose it is and what it says."""

from __future__ import annotations

import json
from typing import Any, Final

from ratchet.data.example import Role
from ratchet.errors import DataError

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
"""Names that records give to the three roles."""


def said(content: Any, place: str) -> str:
    """The text of a turn: text parts are joined, other values are spelled as JSON; null is refused.

    Raises DataError for text that no store or tokenizer takes: NUL characters and half surrogate pairs.
    """
    if content is None:
        raise DataError(f"{place} is null.")
    text = content if isinstance(content, str) else _joined(content, place)
    if "\0" in text:
        raise DataError(f"{place} contains a NUL character.")
    if not _is_unicode(text):
        raise DataError(f"{place} contains half a surrogate pair.")
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

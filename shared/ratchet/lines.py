"""Lines of files and streams: they end at a line feed and nowhere else.

``str.splitlines`` and httpx's ``iter_lines`` also break at U+2028, U+2029, U+0085, \\v, \\f and \\x1c to \\x1e. All of
these may be part of a JSON string, so neither is used in Ratchet. It does not know what a line contains.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_BREAKS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def split_lines(text: str) -> list[str]:
    """The lines of a text, without their ends; the last may lack its end."""
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, without their ends, one at a time. Raises UnicodeDecodeError."""
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            yield line.removesuffix("\n")


def stream_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a stream that arrives in pieces, without their ends, which may be CR LF."""
    unread: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        unread.append(first)
        for line in others:
            yield b"".join(unread).removesuffix(b"\r")
            unread = [line]
    if rest := b"".join(unread):
        yield rest


def lines_as_shown(text: str) -> list[str]:
    """The lines of a text as they are displayed: it may also break at the other characters."""
    return text.splitlines()


def first_line(text: str) -> str:
    """The first line as it is displayed, such as that of an error."""
    return next(iter(lines_as_shown(text)), "")


def to_json_line(value: Any) -> str:
    """A value as JSON on one line, also for readers that break at other characters; without the line end."""
    return json.dumps(value, ensure_ascii=False).translate(_BREAKS)

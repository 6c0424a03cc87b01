"""Read examples from JSONL, whatever stands in it: every line gives an Example or a DataError, and none ends it.

Memory does not grow with the file; of an over-long line only the beginning is held.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ratchet.data.adapters import adapt
from ratchet.data.example import Example
from ratchet.errors import DataError

LINE_LIMIT_BYTES = 1 << 20
"""Longest line: a row of a megabyte is no example."""

Numbered = tuple[int, Example | DataError]


def read_examples(path: Path, line_limit_bytes: int = LINE_LIMIT_BYTES) -> Iterator[Numbered]:
    """Pairs of line number (from 1) and Example or DataError; the error names file and line. Blank lines are passed."""
    with path.open("rb") as file:
        for number, line, is_whole in _lines(file, line_limit_bytes):
            if line.strip():
                yield number, _read(f"{path.name}:{number}", line, is_whole, line_limit_bytes)


def _lines(file: BinaryIO, limit: int) -> Iterator[tuple[int, bytes, bool]]:
    """Number, bytes, and whether the line ended within the limit (the last one may end with the file)."""
    number = 0
    while line := file.readline(limit + 1):
        number += 1
        is_whole = line.endswith(b"\n") or len(line) <= limit
        rest = line
        while not is_whole and rest and not rest.endswith(b"\n"):
            rest = file.readline(limit)
        yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, is_whole


def _read(place: str, line: bytes, is_whole: bool, limit: int) -> Example | DataError:
    try:
        if not is_whole:
            raise DataError(f"longer than {limit} bytes.")
        return adapt(_row(line))
    except DataError as error:
        return type(error)(f"{place}: {error}")


def _row(line: bytes) -> dict[str, Any]:
    if b"\0" in line or b"\\u0000" in line:
        raise DataError("contains a NUL character.")
    try:
        row = json.loads(line.decode(), parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}.") from error
    except (ValueError, RecursionError) as error:
        if not line.lstrip().startswith(b"{"):
            raise DataError(
                f"not JSON: {error}. A file has one object a line: no array around them, no CSV."
            ) from error
        is_cut = not line.endswith(b"\n")
        raise DataError(f"not JSON{' (the file ends within the row)' if is_cut else ''}: {error}.") from error
    if not isinstance(row, dict):
        raise DataError(f"a JSON {type(row).__name__}, not an object. A file has one object a line.")
    return row


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")

"""Reads examples from JSONL. Every line gives an Example or a DataError; a bad line does not end the reading.

Memory does not grow with the file: only the beginning of an over-long line is kept.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ratchet.data.adapters import adapt
from ratchet.data.example import Example
from ratchet.data.turns import Numeral
from ratchet.errors import DataError
from ratchet.printable import printable
from ratchet.user_files import open_regular

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The escape of a NUL, not the six characters spelt out, which follow a backslash that is itself escaped."""

REFUSED = "refused"
"""The only key of a line that stands for a row that was refused when its file was converted; the value says why."""

LINE_LIMIT_BYTES = 1 << 20
"""Maximum length of a line; a row over a megabyte is not an example."""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _read_number(text: str) -> Numeral:
    number = Numeral(text)
    if math.isinf(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_read_number)
"""Strict JSON: NaN, infinities and numbers out of range raise ValueError; numbers remember how they were written."""

Numbered = tuple[int, Example | DataError]


def read_examples(path: Path, line_limit_bytes: int = LINE_LIMIT_BYTES) -> Iterator[Numbered]:
    """Pairs of line number (from 1) and Example or DataError; the error names file and line. Blank lines are skipped.

    Raises DataError if the path is not a regular file.
    """
    shown = printable(path.name)
    with open_regular(path) as file:
        for number, line, is_whole in bounded_lines(file, line_limit_bytes):
            if line.strip():
                yield number, _read(f"{shown}:{number}", line, is_whole, line_limit_bytes)


def bounded_lines(file: BinaryIO, limit: int) -> Iterator[tuple[int, bytes, bool]]:
    """For each line its number, its bytes, and whether it ended within the limit (the last may end with the file)."""
    number = 0
    while line := file.readline(limit + 1):
        number += 1
        is_whole = line.endswith(b"\n") or len(line) <= limit
        rest = line
        while not is_whole and rest and not rest.endswith(b"\n"):
            rest = file.readline(limit)
        yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, is_whole


def json_object(line: bytes) -> dict[str, Any]:
    """The JSON object on a line. Raises DataError for anything else, and for NaN and numbers out of range."""
    try:
        row = _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}.") from error
    except (ValueError, RecursionError) as error:
        if not line.lstrip().startswith(b"{"):
            raise DataError(
                f"not JSON: {error}. A file has one object per line: no array around them, no CSV."
            ) from error
        is_cut = not line.endswith(b"\n")
        raise DataError(f"not JSON{' (the file ends within the row)' if is_cut else ''}: {error}.") from error
    if not isinstance(row, dict):
        raise DataError(f"a JSON {type(row).__name__}, not an object. A file has one object per line.")
    return row


def require_no_nul(line: bytes) -> None:
    """Raise DataError for a NUL character in JSON."""
    if b"\0" in line or (b"\\u0000" in line and _NUL.search(line)):
        raise DataError("contains a NUL character, which a database cannot store: remove it.")


def require_unicode(line: bytes, row: dict[str, Any]) -> None:
    """Raise DataError for an unpaired surrogate. The line is UTF-8, so only an escape sequence can contain one."""
    if _SURROGATE.search(line) is None:
        return
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError) as error:
        raise DataError("contains an unpaired surrogate.") from error


def _read(place: str, line: bytes, is_whole: bool, limit: int) -> Example | DataError:
    try:
        if not is_whole:
            raise DataError(f"longer than {limit} bytes.")
        require_no_nul(line)
        row = json_object(line)
        if row.keys() == {REFUSED}:
            return DataError(str(row[REFUSED]))
        example = adapt(row)  # first, since its error names the turn
        require_unicode(line, row)
    except DataError as error:
        return type(error)(f"{place}: {error}")
    return example

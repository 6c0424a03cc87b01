"""The rows of one opened file: of JSONL, a JSON document, CSV, Parquet or Arrow, each with its number from 1.

A bad row gives a DataError; a file that cannot be read on raises one. Memory does not grow with the file. It does not
know what the columns mean.
"""

from __future__ import annotations

import codecs
import csv
import datetime
import decimal
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final, cast

from ratchet.data.file_kinds import CONTAINERS, Kind, encoding_error, require_pyarrow
from ratchet.data.jsonl import LINE_LIMIT_BYTES, bounded_lines, json_object, require_no_nul, require_unicode
from ratchet.data.turns import Numeral
from ratchet.errors import DataError

Row = dict[str, Any]
Numbered = tuple[int, Row | DataError]

_CHUNK = 1 << 16
_BATCH_ROWS = 256
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(parse_constant=Numeral, parse_float=Numeral)
"""Of documents. It lets NaN and infinities pass, so that only their row is refused and not all that follow it."""
_TOO_LONG = f"longer than {LINE_LIMIT_BYTES:,} bytes."


def read_rows(content: BinaryIO, kind: Kind, name: str) -> Iterator[Numbered]:
    """The rows of a file of this kind. For text the number is that of the row's first line, but of a JSON array and of
    tables that of the row.

    Raises DataError, naming the file.
    """
    return _READERS[kind](content, name)


def _jsonl(content: BinaryIO, name: str) -> Iterator[Numbered]:
    for number, line, is_whole in bounded_lines(content, LINE_LIMIT_BYTES):
        if not line.strip():
            continue
        try:
            line.decode()
        except UnicodeDecodeError as error:
            if is_whole:
                raise encoding_error(f"{name}:{number}", error) from error
        yield number, _object(line) if is_whole else DataError(_TOO_LONG)


def _object(line: bytes) -> Row | DataError:
    try:
        require_no_nul(line)
        row = json_object(line)
        require_unicode(line, row)
    except DataError as error:
        return error
    return row


def _json(content: BinaryIO, name: str) -> Iterator[Numbered]:
    """The objects of an array; of an object, those under the key that holds rows; else the objects that follow each
    other."""
    document = _Document(content, name)
    if document.next_is("["):
        yield from _elements(document, name)
        document.require_end()
        return
    number = 0
    while number == 0 or document.next_is("{"):
        number += 1
        row: Row = {}
        for key in document.members():
            if number == 1 and key in CONTAINERS and document.next_is("["):
                yield from _elements(document, name)
                return
            row[key] = document.value(f"the value of {key!r}")
        if _lists_columns(row):
            raise DataError(
                f"{name}: it lists its columns, not its rows: write it with pandas' "
                "`to_json(NAME, orient='records', lines=True)`."
            )
        yield number, _checked(row)
    document.require_end()


def _lists_columns(row: Row) -> bool:
    """Whether each value is a column: a list of one length, or an object with the numbers of the rows."""
    values = list(row.values())
    if len(values) > 1 and all(isinstance(value, list) for value in values):
        return len({len(value) for value in values}) == 1
    return bool(values) and all(isinstance(value, dict) and "0" in value for value in values)


def _elements(document: _Document, name: str) -> Iterator[Numbered]:
    number = 0
    for number, value in enumerate(document.elements(), start=1):
        if isinstance(value, dict):
            yield number, _checked(value)
        else:
            yield number, DataError(f"a JSON {type(value).__name__}, not an object.")
    if number == 0:
        raise DataError(f"{name}: its array is empty.")


class _Document:
    """A JSON document that is read value by value."""

    def __init__(self, content: BinaryIO, name: str) -> None:
        self._content, self._name = content, name
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._text, self._place, self._is_end = "", 0, False

    def next_is(self, character: str) -> bool:
        """Whether this is the next character that is not white space."""
        self._skip_space()
        return self._text.startswith(character, self._place)

    def members(self) -> Iterator[str]:
        """The keys of the object that begins here; after each, its value must be read."""
        self._expect("{")
        while not self.next_is("}"):
            key = self.value("a key")
            self._expect(":")
            yield str(key)
            if not self.next_is("}"):
                self._expect(",")
        self._expect("}")

    def elements(self) -> Iterator[Any]:
        """The values of the array that begins here."""
        self._expect("[")
        number = 0
        while not self.next_is("]"):
            number += 1
            yield self.value(f"row {number}")
            if not self.next_is("]"):
                self._expect(",", f" after row {number}")
        self._expect("]")

    def value(self, what: str) -> Any:
        self._skip_space()
        while True:
            trouble = "it is cut off"
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
            except (ValueError, RecursionError) as error:
                trouble = str(error)  # the error itself would keep the text
            else:
                if end < len(self._text) or self._is_end:  # else a number may go on
                    self._place = end
                    return value
            if len(self._text) - self._place > LINE_LIMIT_BYTES:
                raise DataError(f"{self._name}: {what} is not JSON, or {_TOO_LONG}")
            if not self._read_on():
                raise DataError(f"{self._name}: {what} is not JSON: {trouble}.")

    def require_end(self) -> None:
        """Raise DataError if anything follows."""
        self._skip_space()
        if self._place < len(self._text):
            raise DataError(f"{self._name}: not JSON: {self._text[self._place :][:40]!r} follows its end.")

    def _expect(self, character: str, where: str = "") -> None:
        if not self.next_is(character):
            raise DataError(f"{self._name}: not JSON: {character!r} is missing{where}, the file may be cut off.")
        self._place += 1

    def _skip_space(self) -> None:
        while True:
            space = _SPACE.match(self._text, self._place)
            self._place = space.end() if space else self._place
            if self._place < len(self._text) or not self._read_on():
                return

    def _read_on(self) -> bool:
        """Add what follows in the file to the text that is not read yet; False at its end."""
        if self._is_end:
            return False
        chunk = self._content.read(_CHUNK)
        try:
            self._text = self._text[self._place :] + self._decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise encoding_error(self._name, error) from error
        self._place, self._is_end = 0, not chunk
        return True


def _csv(content: BinaryIO, name: str) -> Iterator[Numbered]:
    """The rows below the header. A row with other than the header's number of cells is refused."""
    csv.field_size_limit(LINE_LIMIT_BYTES)  # of the process: there is no other
    lines = _Lines(content, name)
    first = lines.peek()
    delimiter = max("\t;,", key=lambda mark: first.count(mark))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader)
        _require_header(header, name)
        while True:
            number = reader.line_num + 1
            cells = next(reader, None)
            if cells is None:
                return
            if any(cell.strip() for cell in cells):
                yield number, _cells(header, cells)
    except csv.Error as error:
        raise DataError(f"{name}:{reader.line_num}: not CSV: {error}.") from error


def _cells(header: list[str], cells: list[str]) -> Row | DataError:
    if len(cells) != len(header):
        return DataError(f"has {len(cells)} cells, where the header has {len(header)}.")
    return _checked(dict(zip(header, cells, strict=True)))


def _require_header(header: list[str], name: str) -> None:
    for place, column in enumerate(header, start=1):
        if column in header[: place - 1]:
            raise DataError(f"{name}:1: the header names column {column!r} twice.")
    if len(header) < 2:
        raise DataError(f"{name}:1: the header has only the columns {header}; a question and an answer are needed.")


class _Lines:
    """The lines of CSV as text, ends included."""

    def __init__(self, content: BinaryIO, name: str) -> None:
        self._lines = bounded_lines(content, LINE_LIMIT_BYTES)
        self._name = name
        self._next: str | None = self._read()

    def peek(self) -> str:
        return self._next or ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line, self._next = self._next, self._read()
        if line is None:
            raise StopIteration
        return line

    def _read(self) -> str | None:
        found = next(self._lines, None)
        if found is None:
            return None
        number, line, is_whole = found
        if not is_whole:
            raise DataError(f"{self._name}:{number}: {_TOO_LONG}")
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise encoding_error(f"{self._name}:{number}", error) from error


def _parquet(content: BinaryIO, name: str) -> Iterator[Numbered]:
    arrow = require_pyarrow()
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(content)
        yield from _batches(file.iter_batches(batch_size=_BATCH_ROWS))
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"{name} is damaged Parquet: {_first_line(error)}") from error


def _arrow(content: BinaryIO, name: str) -> Iterator[Numbered]:
    """Both of Arrow's formats: of files, which has an index, and of streams."""
    arrow = require_pyarrow()
    from pyarrow import ipc

    try:
        if cast(io.BufferedReader, content).peek(6).startswith(b"ARROW1"):
            content.read(8)  # with padding; a stream follows, and the index behind it
        yield from _batches(iter(ipc.open_stream(content)))
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"{name} is damaged Arrow data: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0][:200]


def _batches(batches: Iterator[Any]) -> Iterator[Numbered]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            try:
                yield number, _checked({str(key): _plain(value, str(key)) for key, value in row.items()})
            except DataError as error:
                yield number, error


def _plain(value: Any, column: str) -> Any:
    """A value of Arrow as JSON has it: NaN is null, a time its ISO text, and fields of objects that are null go, since
    in a table every object has the fields of all. Raises DataError for binary data.
    """
    if isinstance(value, dict):
        return {key: _plain(inner, column) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_plain(inner, column) for inner in value]
    if isinstance(value, float):
        if math.isinf(value):
            raise DataError(f"column {column} is infinite.")
        return None if math.isnan(value) else value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"column {column} holds binary data: only text can be trained on.") from error
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta | decimal.Decimal):
        return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)
    return value


def _checked(row: Row) -> Row | DataError:
    """The row, if it can be stored."""
    try:
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
        require_no_nul(line)
    except DataError as error:
        return error
    except UnicodeEncodeError:
        return DataError("contains an unpaired surrogate.")
    except ValueError:
        return DataError("contains NaN, an infinity or a number that is too large, which JSON does not have.")
    except (TypeError, RecursionError) as error:
        return DataError(f"cannot be written as JSON: {error}.")
    return DataError(_TOO_LONG) if len(line) > LINE_LIMIT_BYTES else row


_READERS: Final[dict[Kind, Callable[[BinaryIO, str], Iterator[Numbered]]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "parquet": _parquet,
    "arrow": _arrow,
}

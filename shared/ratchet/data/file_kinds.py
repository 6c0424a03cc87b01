"""What a user's file is: its kind, told by its first bytes and else by its name, and its content unpacked as UTF-8.

A file of another kind or encoding is one DataError that says what it seems to be and what to do. It does not read rows.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any, BinaryIO, Final, Literal, cast

from ratchet.errors import DataError, SettingsError
from ratchet.printable import printable

Kind = Literal["jsonl", "json", "csv", "parquet", "arrow"]

ROW_SUFFIXES: Final = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather")
PACKED_SUFFIXES: Final = (".gz", ".zst")

HEAD_BYTES = 1 << 16
"""So much of the content is looked at to tell its kind."""

_TABLES: Final[tuple[tuple[bytes, Kind], ...]] = (
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow"),
)
_OTHERS: Final = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook", "unpack it, or save the sheet as CSV (UTF-8)"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file", "save it as CSV (UTF-8)"),
    (b"\x80\x02", "a pickle, which may run code when it is read", "write its rows as JSONL or Parquet"),
    (b"\x80\x03", "a pickle, which may run code when it is read", "write its rows as JSONL or Parquet"),
    (b"\x80\x04", "a pickle, which may run code when it is read", "write its rows as JSONL or Parquet"),
    (b"\x80\x05", "a pickle, which may run code when it is read", "write its rows as JSONL or Parquet"),
    (b"\x89PNG", "a picture", "give the file with the rows"),
    (b"\xff\xd8\xff", "a picture", "give the file with the rows"),
    (b"GIF8", "a picture", "give the file with the rows"),
    (b"RIFF", "a sound, picture or film", "give the file with the rows"),
    (b"%PDF", "a PDF", "write its questions and answers as JSONL or CSV"),
    (b"SQLite format 3\0", "an SQLite database", "export the table as CSV: `sqlite3 -header -csv FILE 'SELECT …'`"),
    (b"BZh", "packed with bzip2", "unpack it with `bunzip2`"),
    (b"\xfd7zXZ", "packed with xz", "unpack it with `unxz`"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"FEA1", "Feather of version 1", "write it again with pyarrow, as Parquet"),
    (b"\x89HDF", "an HDF5 file", "write its rows as Parquet or CSV"),
    (b"\x93NUMPY", "a NumPy array", "write the rows as JSONL or Parquet"),
    (b"\x7fELF", "a program", "give the file with the rows"),
    (b"GGUF", "the weights of a model", "give the file with the rows"),
    (b"<!DOCTYPE", "a web page", "download the file itself, not the page about it"),
    (b"<html", "a web page", "download the file itself, not the page about it"),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself with `git lfs pull`"),
)
_UTF16: Final = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_UTF32: Final = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)

CONTAINERS: Final = ("data", "rows", "train", "examples", "items", "instances", "records")
"""Keys of a JSON object under which its rows may lie."""
_CONTAINER = re.compile(r'\{\s*"(?:' + "|".join(CONTAINERS) + r')"\s*:\s*\[')


def is_rows_file(name: str) -> bool:
    """Whether a name looks like that of a file with rows."""
    return bool(row_suffix(name))


def row_suffix(name: str) -> str:
    """The suffix that names the kind, in lower case, before one of compression; empty if there is none."""
    path = PurePath(name.casefold())
    if path.suffix in PACKED_SUFFIXES:
        path = path.with_suffix("")
    return path.suffix if path.suffix in ROW_SUFFIXES else ""


@contextmanager
def opened_content(file: BinaryIO, name: str) -> Iterator[tuple[Kind, BinaryIO]]:
    """The kind of an open file, and its content from the start: unpacked, and text as UTF-8.

    Raises DataError, naming the file, for other kinds of file, and where unpacking or decoding fails within the block.
    """
    shown = printable(name)
    content = file
    try:
        try:
            kind, content = _recognized(file, name)
        except DataError as error:
            raise DataError(f"{shown}: {error}") from error
        yield kind, content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{shown} is damaged, and cannot be unpacked to its end: {error}.") from error
    except UnicodeError as error:
        raise DataError(f"{shown} is damaged UTF-16: {error}. Save it as UTF-8.") from error
    finally:
        if content is not file:
            content.close()


def _recognized(file: BinaryIO, name: str) -> tuple[Kind, BinaryIO]:
    content = _unpacked(file)
    head = _peek(content)
    if not head.strip():
        raise DataError("it is empty.")
    kind = _table_kind(head) or _text_kind(head, name)
    if kind == "parquet" and content is not file:
        return kind, _spooled(content)  # its index is at the end
    return kind, content if kind in ("parquet", "arrow") else _utf8(content, head)


def require_pyarrow() -> Any:
    """The module. Raises SettingsError where it is not installed."""
    try:
        import pyarrow
    except ImportError as error:
        raise SettingsError(
            "Parquet, Arrow and .zst files are read with pyarrow: `pip install 'ratchet-shared[files]'`."
        ) from error
    return pyarrow


def encoding_error(place: str, error: UnicodeDecodeError) -> DataError:
    """For text that is not UTF-8: the whole file is refused, since its other letters are wrong too."""
    return DataError(
        f"{place}: not UTF-8 at byte {error.start}; save the file as UTF-8, as with "
        "`iconv -f ISO-8859-1 -t UTF-8 OLD > NEW`, or take this line out if it is damaged."
    )


def _unpacked(file: BinaryIO) -> BinaryIO:
    head = _peek(file)
    if head.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=file)), HEAD_BYTES))
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return cast(BinaryIO, io.BufferedReader(_Zstd(file), HEAD_BYTES))
    return file


def _peek(file: BinaryIO) -> bytes:
    """The beginning of a buffered file, of which it stays the beginning."""
    return cast(io.BufferedReader, file).peek(HEAD_BYTES)[:HEAD_BYTES]


def _table_kind(head: bytes) -> Kind | None:
    """Parquet or Arrow. Raises DataError for what is no file of rows."""
    for magic, kind in _TABLES:
        if head.startswith(magic):
            return kind
    for magic, what, remedy in _OTHERS:
        if head.startswith(magic):
            raise DataError(f"this is {what}: {remedy}.")
    if head[257:262] == b"ustar":
        raise DataError("this is a tar archive: unpack it.")
    return None


def _text_kind(head: bytes, name: str) -> Kind:
    text = _decoded(head).lstrip()
    suffix = row_suffix(name)
    lines = text.split("\n")
    if len(lines) == 1 and text.count("\r") > 1 and not text.startswith("["):
        raise DataError("its lines end with carriage returns alone: `tr '\\r' '\\n' < OLD > NEW` mends that.")
    if text.startswith("["):
        if suffix in (".csv", ".tsv") and not _is_json(text, "["):
            return "csv"
        return "json"
    if text.startswith("{") and _is_json(text, "{"):
        return _objects_kind(text, suffix)
    if suffix in (".csv", ".tsv"):
        return "csv"
    if text.startswith("{") or any(line.startswith("{") for line in lines[1:]):
        return "jsonl"  # whose first line is damaged
    if "\t" in lines[0] or "," in lines[0]:
        raise DataError("this looks like CSV or TSV: let its name end with .csv or .tsv.")
    raise DataError(
        f"this is no file of rows, it begins with {text[:40]!r}: JSONL, JSON, CSV, TSV, Parquet and Arrow can be read."
    )


def _objects_kind(text: str, suffix: str) -> Kind:
    """JSONL, or one JSON document: an object over several lines, or one that holds the rows."""
    first, _, rest = text.partition("\n")
    following = rest.lstrip()
    if following.startswith("{"):
        return "jsonl"
    if suffix == ".json" or _CONTAINER.match(text):
        return "json"
    return "json" if following and not _is_whole(first) else "jsonl"


def _is_json(text: str, opening: str) -> bool:
    """Whether an object or array begins, and not a CSV cell with a bracket."""
    following = text[1:].lstrip()[:1]
    return following in '"}' if opening == "{" else following in '{"[]-0123456789tfn'


def _is_whole(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _decoded(head: bytes) -> str:
    """The head as text, as far as it is UTF-8. Raises DataError for binary data, and for unmarked UTF-16 and UTF-32."""
    if head.startswith(_UTF32):
        raise DataError("its encoding is UTF-32: save it as UTF-8.")
    for mark, encoding in _UTF16:
        if head.startswith(mark):
            return head[len(mark) : len(head) // 2 * 2].decode(encoding, "replace")
    if [byte == 0 for byte in head[:4]] in ([False, True] * 2, [True, False] * 2):
        raise DataError("its encoding seems to be UTF-16 without a mark: save it as UTF-8.")
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(head.removeprefix(codecs.BOM_UTF8))
    if b"\0" in head and ("\ufffd" in text or head.count(0) > len(head) // 10):
        raise DataError("this is binary data, not a file of rows.")
    return text


def _utf8(content: BinaryIO, head: bytes) -> BinaryIO:
    for mark, encoding in _UTF16:
        if head.startswith(mark):
            content.read(len(mark))
            return cast(BinaryIO, io.BufferedReader(_Transcoded(content, encoding), HEAD_BYTES))
    if head.startswith(codecs.BOM_UTF8):
        content.read(len(codecs.BOM_UTF8))
    return content


def _spooled(content: BinaryIO) -> BinaryIO:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed with its last reference
    while chunk := content.read(HEAD_BYTES):
        file.write(chunk)
    file.seek(0)
    return cast(BinaryIO, file)


class _Zstd(io.RawIOBase):
    """Unpacks zstd as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._arrow = require_pyarrow()
        self._stream = self._arrow.CompressedInputStream(self._arrow.PythonFile(file, "r"), "zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        try:
            chunk = self._stream.read(len(view))
        except (OSError, self._arrow.ArrowException) as error:
            raise EOFError(str(error)) from error
        view[: len(chunk)] = chunk
        return len(chunk)


class _Transcoded(io.RawIOBase):
    """Turns text of another encoding into UTF-8 as it is read."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder(encoding)().decode
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        while not self._ready:
            chunk = self._file.read(HEAD_BYTES)
            self._ready = self._decode(chunk, final=not chunk).encode()
            if not chunk:
                break
        given = self._ready[: len(view)]
        self._ready = self._ready[len(given) :]
        view[: len(given)] = given
        return len(given)

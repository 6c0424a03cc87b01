"""A user's data: a file, a folder of files or a data set of the hub, read as numbered rows, and as examples.

``convert`` writes it in the one form that the rest of Ratchet reads. How each kind of file is read is told in
``row_readers``, how a row becomes an example in ``adapters``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ratchet.data.adapters import Row, adapt
from ratchet.data.column_map import ColumnMap, propose_mapping
from ratchet.data.example import Example
from ratchet.data.file_kinds import is_rows_file, opened_content
from ratchet.data.hub import HUB, hub_files
from ratchet.data.jsonl import LINE_LIMIT_BYTES, REFUSED
from ratchet.data.row_readers import read_rows
from ratchet.errors import DataError, UnknownShape
from ratchet.printable import printable
from ratchet.user_files import open_regular

Notice = Callable[[str], None]
"""Is told a sentence about each entry of a folder that is not read."""

HOPELESS_ROWS = 100
"""A file whose first rows are all refused is refused as a whole: it is of another kind than it seems."""
MOST_LISTED = 100
"""So many refused rows are listed by line; the others are only counted, so that memory does not grow."""
_SAMPLES = 20
_REPORT_EVERY = 500

_SPLIT: Final = re.compile(r"(?<![a-z])(train|training|test|testing|valid|validation|dev|eval)(?![a-z])")
_OF_TRAINING: Final = ("train", "training")
_ABOUT_DATA: Final = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as the file has it. ``number`` counts lines, or rows where there are no lines, from 1."""

    file: str
    number: int
    value: Row | DataError

    @property
    def place(self) -> str:
        return f"{self.file}:{self.number}"


@dataclass(frozen=True, slots=True)
class ReadRow:
    """A row as an example, or the error that names its file and line."""

    file: str
    number: int
    value: Example | DataError


@dataclass(frozen=True)
class Conversion:
    """What ``convert`` wrote: ``rows`` lines, of which ``unreadable`` stand for refused rows, which the data gate will
    quarantine by file and line. ``refused`` lists the first of them as (line, reason)."""

    rows: int
    unreadable: int
    refused: list[tuple[int, str]]


def open_rows(source: str | Path, notice: Notice = lambda _: None) -> Iterator[RawRow]:
    """The rows of a file, a folder or ``hf:ORG/NAME[:CONFIG][@SPLIT]``.

    Raises DataError for a file that cannot be read as rows; bad rows are DataErrors among the others.
    """
    for name, file in _files(source, notice):
        with open_regular(file) as opened:
            yield from rows_of(opened, name)


def rows_of(file: BinaryIO, name: str) -> Iterator[RawRow]:
    """As ``open_rows``, of a file that is open; its name tells its kind where the content does not."""
    shown = printable(name)
    with opened_content(file, name) as (kind, content):
        for number, row in read_rows(content, kind, shown):
            yield RawRow(shown, number, row)


def read_file_examples(
    source: str | Path, mapping: ColumnMap | None = None, notice: Notice = lambda _: None
) -> Iterator[ReadRow]:
    """The examples of any source. Raises DataError as ``open_rows`` does, and where no row of a file can be read."""
    return examples_of_rows(open_rows(source, notice), mapping)


def examples_of_rows(rows: Iterable[RawRow], mapping: ColumnMap | None = None) -> Iterator[ReadRow]:
    """The rows as examples. The first refused ones are held back until it is known that the file is no mistake."""
    held: list[ReadRow] = []
    samples: list[Row] = []
    is_hopeful = False
    for row in rows:
        read = ReadRow(row.file, row.number, _example(row, mapping))
        if is_hopeful:
            yield read
            continue
        held.append(read)
        if isinstance(row.value, dict) and len(samples) < _SAMPLES:
            samples.append(row.value)
        is_hopeful = isinstance(read.value, Example)
        if is_hopeful:
            yield from held
            held.clear()
        elif len(held) >= HOPELESS_ROWS:
            raise _hopeless(held, samples, mapping)
    if held:
        raise _hopeless(held, samples, mapping)


def _example(row: RawRow, mapping: ColumnMap | None) -> Example | DataError:
    try:
        if isinstance(row.value, DataError):
            raise row.value
        return adapt(row.value) if mapping is None else adapt(mapping.apply(row.value), mapping.keys)
    except DataError as error:
        return type(error)(f"{row.place}: {error}")


def _hopeless(held: list[ReadRow], samples: list[Row], mapping: ColumnMap | None) -> DataError:
    """The refusal of a whole file, with the mapping that would read it, if there is one."""
    first = held[0]
    proposal = propose_mapping(list(samples[0]), samples) if samples and mapping is None else None
    counted = f"the first {len(held)} rows" if len(held) >= HOPELESS_ROWS else f"{len(held)} rows"
    said = f"{first.file}: of {counted} none can be read; {first.value}" if len(held) > 1 else str(first.value)
    kind = UnknownShape if isinstance(first.value, UnknownShape) else DataError
    return kind(f"{said} {proposal.sentence}" if proposal else said)


def convert(
    file: BinaryIO,
    name: str,
    destination: Path,
    mapping: ColumnMap | None = None,
    report: Callable[[int], None] = lambda _: None,
) -> Conversion:
    """Write the rows of an open file as canonical JSONL, each readable one as an example, on its own line number as far
    as that is free. A refused row becomes a line that the data gate quarantines, with its file and line. ``report`` is
    called with the number of rows every now and then.

    Raises DataError for a file that cannot be read as rows; ``destination`` is then incomplete.
    """
    return write_examples(examples_of_rows(rows_of(file, name), mapping), destination, report)


def write_examples(
    examples: Iterable[ReadRow], destination: Path, report: Callable[[int], None] = lambda _: None
) -> Conversion:
    """Write examples and refused rows as ``convert`` does."""
    rows = unreadable = line = 0
    refused: list[tuple[int, str]] = []
    with open(destination, "wb") as out:
        for read in examples:
            out.write(b"\n" * max(0, read.number - line - 1))
            line = max(line + 1, read.number)
            text = _line_of(read)
            if isinstance(text, DataError):
                unreadable += 1
                if len(refused) < MOST_LISTED:
                    refused.append((read.number, str(text)))
                text = json.dumps({REFUSED: str(text)}, ensure_ascii=False)
            out.write(text.encode() + b"\n")
            rows += 1
            if rows % _REPORT_EVERY == 0:
                report(rows)
    return Conversion(rows, unreadable, refused)


def _line_of(read: ReadRow) -> str | DataError:
    if isinstance(read.value, DataError):
        return read.value
    line = read.value.to_line()
    if len(line.encode()) > LINE_LIMIT_BYTES:
        return DataError(f"{read.file}:{read.number}: longer than {LINE_LIMIT_BYTES:,} bytes.")
    return line


def _files(source: str | Path, notice: Notice) -> list[tuple[str, Path]]:
    """Names and paths of the files to read."""
    if str(source).startswith(HUB):
        return hub_files(str(source))
    path = Path(source)
    return _folder_files(path, notice) if path.is_dir() else [(path.name, path)]


def _folder_files(folder: Path, notice: Notice) -> list[tuple[str, Path]]:
    """The files with rows in a folder and in its own folders, by name. Where some are named after the training split,
    those of the other splits are left out: rows are held out from what is given, and a published test stays one.
    """
    found: list[tuple[str, Path]] = []
    for path in sorted([*folder.glob("*"), *folder.glob("*/*")], key=lambda each: os.fsencode(each)):
        name = str(path.relative_to(folder))
        if path.is_dir() and path.parent == folder and not path.name.startswith("."):
            continue
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.name in _ABOUT_DATA or not path.is_file() or not is_rows_file(path.name):
            notice(f"{printable(name)} is ignored: no file with rows.")
        else:
            found.append((name, path))
    splits = {name: split_of(name) for name, _ in found}
    if any(split in _OF_TRAINING for split in splits.values()):
        for name, split in splits.items():
            if split and split not in _OF_TRAINING:
                notice(f"{printable(name)} is ignored: it is the split {split}, and there is one for training.")
        found = [(name, path) for name, path in found if not splits[name] or splits[name] in _OF_TRAINING]
    if not found:
        raise DataError(f"{printable(folder)} has no file with rows: JSONL, JSON, CSV, TSV, Parquet or Arrow.")
    return found


def split_of(name: str) -> str:
    """The split that a file is named after, such as ``train``; empty if there is none."""
    stem = re.split(r"[.](?:jsonl|ndjson|json|csv|tsv|parquet|arrow|feather)", name.casefold())[0]
    found = _SPLIT.findall(stem)
    return found[-1] if found else ""

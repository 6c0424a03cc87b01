"""Lines of the logs of this machine: which files belong to a system, their ends, and what a line says.

Workers write one JSON object a line; model processes and servers write plain text. It does not follow a file: callers
ask again from where they stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratchet.errors import PreconditionFailed
from ratchet.lines import split_lines
from ratchet.wording import clock

READ_BYTES = 1_000_000
MOST_AT = 4e9
"""The year 2096. A line with a later time is of another program."""
CONTEXT_FIELDS = ("event", "subject", "claim", "lane")
LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True)
class LogLine:
    """One line. Only ``text`` is known of one that a model process has printed, and the time of the line before it."""

    file: str
    text: str
    at: float | None = None
    level: str = ""
    context: dict[str, str] = field(default_factory=dict)
    traceback: str = ""

    @property
    def readable(self) -> str:
        """As a line of a terminal, with its traceback below it."""
        if not self.level:
            return self.text
        context = " ".join(f"{key}={value}" for key, value in self.context.items())
        head = f"{clock(self.at)} {self.level:<7} {self.text}"
        told = f"{head}  [{context}]" if context else head
        return f"{told}\n{self.traceback}" if self.traceback else told

    def has(self, text: str) -> bool:
        """Whether any part of it contains the text, in any case."""
        wanted = text.casefold()
        return any(wanted in part.casefold() for part in (self.text, self.traceback, self.file, *self.context.values()))


def log_files(folder: Path, system: str | None = None) -> list[Path]:
    """The files of a system, or of all. Raises PreconditionFailed, naming those that have some, where there is none."""
    files = sorted(folder.glob("*.log"))
    chosen = [file for file in files if system in (None, system_of(file))]
    if not chosen:
        known = sorted({system_of(file) for file in files})
        raise PreconditionFailed(
            f"no logs of {system or 'any system'} in {folder}; there are: {', '.join(known) or 'none yet'}."
        )
    return chosen


def system_of(file: Path) -> str:
    """``testing`` of ``testing@host+0.log`` and of ``testing.child.log``."""
    return file.name.split("@")[0].split(".")[0]


def tail(file: Path, limit: int, most_bytes: int = READ_BYTES) -> tuple[list[str], int]:
    """The last complete lines within the file's last bytes, and the byte after them."""
    size = file.stat().st_size
    start = max(0, size - most_bytes)
    lines, end = since(file, start)
    return lines[1 if start else 0 :][-limit:], end


def since(file: Path, start: int) -> tuple[list[str], int]:
    """Complete lines from that byte on, and the byte after them. A rotated file is read from its beginning."""
    with file.open("rb") as stream:
        stream.seek(start if start <= file.stat().st_size else 0)
        begin = stream.tell()
        whole, newline, _ = stream.read().rpartition(b"\n")
    return split_lines(whole.decode(errors="replace")), begin + len(whole) + len(newline)


def read_line(line: str, file: str = "", at: float | None = None) -> LogLine:
    """What a line says. ``at`` is the time of the line before it, which a line without one takes over."""
    try:
        fields = json.loads(line)
        told = float(fields["at"]), str(fields["level"]), str(fields["message"])
        if not 0 <= told[0] < MOST_AT:
            return LogLine(file, line, at)
    except (ValueError, KeyError, TypeError):
        return LogLine(file, line, at)
    context = {key: str(fields[key]) for key in CONTEXT_FIELDS if fields.get(key)}
    return LogLine(file, told[2], told[0], told[1], context, _traceback(fields))


def newest(
    files: Iterable[Path], limit: int, level: str = "", text: str = "", most_bytes: int = 250_000
) -> list[LogLine]:
    """The newest lines of these files together, the newest last: those of ``level`` or above, with ``text`` in them.

    Lines without a level are left out where one is asked for. A file that has just been rotated away has none.
    """
    found = [line for file in files for line in _lines(file, most_bytes)]
    if level in LEVELS:
        wanted = LEVELS[LEVELS.index(level) :]
        found = [line for line in found if line.level in wanted]
    if text:
        found = [line for line in found if line.has(text)]
    return sorted(found, key=lambda line: line.at or 0.0)[-limit:]


def _lines(file: Path, most_bytes: int) -> Iterator[LogLine]:
    try:
        lines, _ = tail(file, most_bytes, most_bytes)
        at: float | None = file.stat().st_mtime if not _is_timed(lines) else None
    except OSError:
        return
    for line in lines:
        read = read_line(line, file.name, at)
        at = read.at
        yield read


def _is_timed(lines: list[str]) -> bool:
    return any(line.startswith("{") for line in lines)


def _traceback(fields: dict[str, Any]) -> str:
    return str(fields.get("traceback") or "")

"""The inbox: files with rows that a user puts into a folder. They stay there; each version of a file is taken once.

The folder may hold anything. An entry that cannot be read is refused by name, one that is not meant to be read is
ignored by name; the others are taken. How files are read is told in ``ratchet.data.files``.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from ratchet.data.file_kinds import PACKED_SUFFIXES, ROW_SUFFIXES, is_rows_file
from ratchet.data.files import Conversion, convert
from ratchet.errors import AlreadySubmitted, ChangedMeanwhile, DataError, PreconditionFailed
from ratchet.printable import printable
from ratchet.systems import NotReady, Outcome, Subject, Verdict, Work
from ratchet.user_files import open_regular
from ratchet.user_tasks import add

log = logging.getLogger(__name__)

QUIET_S = 2.0
"""A file that was modified more recently may still be incomplete."""


def waiting_files(inbox: Path) -> list[Subject]:
    """The entries of the inbox, each with the size and time that tell its versions apart."""
    return [Subject("file", version) for version, _ in _entries(inbox)]


def take(work: Work) -> Outcome:
    """Convert the file, and add its rows."""
    name = work.subject.id.rpartition("@")[0]
    file = next((file for version, file in _entries(work.settings.inbox) if version == work.subject.id), None)
    if file is None:
        return Verdict("changed", f"{name} is gone, or has changed")
    if not _is_meant(file):
        return Verdict("ignored", f"{name} is not read: {_why_ignored(file.name)}.")
    copy = work.folder / "rows.jsonl"
    try:
        with open_regular(file) as source:
            opened = os.fstat(source.fileno())
            if time.time() - opened.st_mtime < QUIET_S or _is_written_to(source.fileno()):
                return NotReady(f"{name} to be written to its end")
            conversion = convert(source, file.name, copy, report=lambda rows: work.progress(f"{rows} rows of {name}"))
            if (
                _version(file, opened) != work.subject.id
                or _version(file, os.fstat(source.fileno())) != work.subject.id
            ):
                return Verdict("changed", f"{name} has changed meanwhile")
    except DataError as error:
        return Verdict("refused", f"{error} Take it out of the inbox, or `touch` it once it can be read.")
    if not conversion.rows:
        return Verdict("refused", f"{name} has no rows")
    return _added(work, name, copy, conversion)


def _added(work: Work, name: str, rows: Path, conversion: Conversion) -> Outcome:
    """Add the rows as `ratchet data add` does: to the task that they name, or to one with the file's name."""
    stores = (work.settings, work.ledger, work.artifacts)
    try:
        prepared = add.prepare(*stores, rows, name, add.Choice(), work.progress, str(work.settings.inbox / name))
        work.progress(f"adding {name}")
        if prepared is None:
            add.queue_file(work.ledger, work.artifacts, rows, name)
        else:
            add.add_prepared(*stores, prepared)
    except AlreadySubmitted as error:
        return Verdict("known", str(error))
    except ChangedMeanwhile:
        return NotReady("the rows that another command has just added")
    except (DataError, PreconditionFailed) as error:
        return Verdict("refused", f"{name}: {error}")
    reason = f"{conversion.rows} rows of {name}"
    if prepared is not None:
        reason += f" for the task {prepared.task.name} ({prepared.task.metric}), {prepared.split.held_rows} held out"
    if prepared is not None and prepared.joined:
        reason += f"; it joins rows of {', '.join(prepared.joined)}, since the file's name is the same"
    if conversion.unreadable:
        reason += f", {conversion.unreadable} of them unreadable; the first: {conversion.refused[0][1]}"
    return Verdict("submitted", reason)


def _is_meant(file: Path) -> bool:
    return is_rows_file(file.name) and not file.name.startswith(".")


def _why_ignored(name: str) -> str:
    if name.startswith("."):
        return "its name is that of a hidden or temporary file"
    return f"its name ends with none of {', '.join(ROW_SUFFIXES)}, also packed as {' or '.join(PACKED_SUFFIXES)}"


def _is_written_to(handle: int) -> bool:
    """Whether a process has the file open for writing: the kernel then refuses a lease of it (fcntl(2)).

    False where that cannot be known, as on network file systems.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)  # a breaker's signal; the usual one, SIGIO, would end us
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _entries(inbox: Path) -> Iterator[tuple[str, Path]]:
    """Every entry with its version; none of an inbox that cannot be listed."""
    try:
        names = sorted(os.listdir(inbox))
    except FileNotFoundError:
        return
    except OSError as error:
        log.error("the inbox %s cannot be listed: %s", printable(inbox), error.strerror)
        return
    for name in names:
        found = _stat(inbox / name)
        if found is not None:
            yield _version(inbox / name, found), inbox / name


def _stat(file: Path) -> os.stat_result | None:
    """Of a link's target, or of the link itself where it is broken; None for an entry that is gone meanwhile."""
    for look in (os.stat, os.lstat):
        try:
            return look(file)
        except OSError as error:
            trouble = error
    if not isinstance(trouble, FileNotFoundError):
        log.error("%s in the inbox cannot be examined: %s", printable(file.name), trouble.strerror)
    return None


def _version(file: Path, found: os.stat_result) -> str:
    """Name, time and size; of what is no file to take, only its identity, so that its changes say nothing new."""
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)) or not _is_meant(file):
        return f"{printable(file.name)}@{found.st_ino}-{found.st_dev}"
    return f"{printable(file.name)}@{found.st_mtime_ns}-{found.st_size}"

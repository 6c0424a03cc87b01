"""The inbox: JSONL files that a user puts into a folder. They stay there; each version of a file is taken once.

The folder may hold anything. An entry that is no file, or cannot be read, is refused by name; the others are taken.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from ratchet.data.example import Provenance
from ratchet.data.jsonl import copy_rows
from ratchet.errors import DataError, PreconditionFailed
from ratchet.ledger import Transaction
from ratchet.ledger.queue import submit
from ratchet.systems import NotReady, Outcome, Subject, Verdict, Work
from ratchet.user_files import open_regular, printable

log = logging.getLogger(__name__)

QUIET_S = 2.0
"""A file that was modified more recently may still be incomplete."""


def waiting_files(inbox: Path) -> list[Subject]:
    """The entries of the inbox, each with the size and time that tell its versions apart."""
    return [Subject("file", version) for version, _ in _entries(inbox)]


def take(work: Work) -> Outcome:
    """Publish a copy of the file and submit it to the gate."""
    name = work.subject.id.rpartition("@")[0]
    file = next((file for version, file in _entries(work.settings.inbox) if version == work.subject.id), None)
    if file is None:
        return Verdict("changed", f"{name} is gone, or has changed")
    copy = work.folder / "rows.jsonl"
    try:
        with open_regular(file) as source, open(copy, "wb") as rows_copied:
            opened = os.fstat(source.fileno())
            if time.time() - opened.st_mtime < QUIET_S:
                return NotReady(f"{name} to be written to its end")
            rows = copy_rows(source, rows_copied)
            if (
                _version(file, opened) != work.subject.id
                or _version(file, os.fstat(source.fileno())) != work.subject.id
            ):
                return Verdict("changed", f"{name} has changed meanwhile")
    except DataError as error:
        return Verdict("refused", f"{error} Take it out of the inbox, or `touch` it once it can be read.")
    if not rows:
        return Verdict("refused", f"{name} has no rows")
    artifact = work.artifacts.publish(copy, "batch", {"file": name}, consume=True)
    provenance = Provenance(generator="inbox", version="1", parents=(name,)).model_dump(mode="json")
    return _submitted(name, artifact.id, rows, provenance)


def _submitted(name: str, artifact_id: str, rows: int, provenance: dict[str, object]) -> Verdict:
    def effects(tx: Transaction) -> None:
        try:
            tx.emit(submit(tx, artifact_id, rows, "user", provenance))
        except PreconditionFailed:
            return  # the same rows were submitted before

    return Verdict("submitted", f"{rows} rows of {name}", effects=effects)


def _entries(inbox: Path) -> Iterator[tuple[str, Path]]:
    """Every .jsonl entry with its version; none of an inbox that cannot be listed."""
    try:
        names = sorted(os.listdir(inbox))
    except FileNotFoundError:
        return
    except OSError as error:
        log.error("the inbox %s cannot be listed: %s", printable(inbox), error.strerror)
        return
    for name in names:
        if name.endswith(".jsonl"):
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
    """Name, time and size; of a folder or a pipe only its identity, since writing to it changes no file to take."""
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
        return f"{printable(file.name)}@{found.st_ino}-{found.st_dev}"
    return f"{printable(file.name)}@{found.st_mtime_ns}-{found.st_size}"

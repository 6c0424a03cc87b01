"""The inbox: JSONL files that a person lays into a folder. They stay there; each version of a file enters once."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from ratchet.data.batch import Provenance
from ratchet.errors import Refused
from ratchet.ledger import Transaction
from ratchet.ledger.queue import submit
from ratchet.systems import NotReady, Outcome, Subject, Verdict, Work

QUIET_S = 2.0
"""A file that was written to less long ago may be half-written."""


def waiting_files(inbox: Path) -> list[Subject]:
    """The files of the inbox, each with the size and time that tell its versions apart."""
    if not inbox.is_dir():
        return []
    versions = (_version(file) for file in sorted(inbox.glob("*.jsonl")))
    return [Subject("file", version) for version in versions if version is not None]


def take(work: Work) -> Outcome:
    """Publish a copy of the file and put it before the gate."""
    name = work.subject.id.rpartition("@")[0]
    file = work.settings.inbox / name
    if _version(file) != work.subject.id:
        return Verdict("changed", f"{name} is gone, or has another version now")
    if time.time() - file.stat().st_mtime < QUIET_S:
        return NotReady(f"{name} to be written to its end")
    copy = work.folder / "rows.jsonl"
    shutil.copyfile(file, copy)
    with copy.open("rb") as lines:
        rows = sum(1 for line in lines if line.strip())
    if not rows:
        return Verdict("refused", f"{name} has no rows")
    artifact = work.artifacts.publish(copy, "batch", {"file": name}, consume=True)
    provenance = Provenance(generator="inbox", version="1", parents=(name,)).model_dump(mode="json")
    return _submitted(name, artifact.id, rows, provenance)


def _submitted(name: str, artifact_id: str, rows: int, provenance: dict[str, object]) -> Verdict:
    def effects(tx: Transaction) -> None:
        try:
            tx.emit(submit(tx, artifact_id, rows, "user", provenance))
        except Refused:
            return  # the same rows are on their way already

    return Verdict("submitted", f"{rows} rows of {name}", effects=effects)


def _version(file: Path) -> str | None:
    """Name, time and size; None where the file is gone."""
    try:
        stat = file.stat()
    except FileNotFoundError:
        return None
    return f"{file.name}@{stat.st_mtime_ns}-{stat.st_size}"

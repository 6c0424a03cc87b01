"""Removes what dead workers left behind: artifacts of lost claims, unfinished uploads, work folders, and workers' rows.

Each is abandoned by a crash or a takeover, so nobody else removes it. One worker of each home does so, a few times a
day. It never removes an artifact that a row of the ledger names or that another artifact requires, nor one that may be
another ledger's: only what the ledger's own checkpoints, by its provenance, were the parents of.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from ratchet.artifacts import ArtifactStore
from ratchet.artifacts.manifest import Manifest
from ratchet.errors import ArtifactError, TransientError
from ratchet.file_lock import FileLock, is_locked
from ratchet.ledger import Ledger
from ratchet.ledger.health import LISTED_S, is_expected
from ratchet.ledger.tables import Base, CheckpointRow, WorkerRow
from ratchet.settings import Settings
from ratchet.systems.controller import Controller
from ratchet.watchdog import WatchedThread
from ratchet.wording import size

log = logging.getLogger(__name__)

FIRST_S = 120.0
"""After the start, when a worker that was restarted has its name again."""
LOOK_S = 1800.0
EVERY_S = 6 * 3600.0
UNUSED_S = 86_400.0
"""What is younger may still be in use. Publishing an artifact and committing the row that names it takes minutes."""
LIMIT_S = 2 * 3600.0
"""Deleting many large checkpoints takes a while, and nothing waits for it."""

GONE = "it has not been seen for a day: its process or its host is gone."
_DELETED = "deleted"
_PARENTS = {"checkpoint": "parent", "state": "parent", "record": "checkpoint"}
"""The field of an artifact's provenance, by its kind, that names the checkpoint which it was made from."""
_WORKER = re.compile(r"[^/]+@[^/]+\+\d+")
_COMMAND = "tmp"
"""How the scratch folders of commands begin."""


class Housekeeping(WatchedThread):
    """Runs in every worker; the first of a home that finds it due does it."""

    def __init__(self, controller: Controller):
        super().__init__(self._run, controller.watchdog, controller.stop, name="housekeeping", limit_s=LIMIT_S)
        self._settings, self._ledger, self._artifacts = controller.settings, controller.ledger, controller.artifacts

    def _run(self) -> None:
        pause_s = FIRST_S
        while not self._stop_asked.wait(pause_s):
            self.watch.beat()
            pause_s = LOOK_S
            try:
                keep_house(self._settings, self._ledger, self._artifacts, beat=self.watch.beat)
            except (TransientError, ArtifactError, OSError) as error:
                log.warning("leftovers of dead workers are removed later: %s", error)


def keep_house(
    settings: Settings, ledger: Ledger, artifacts: ArtifactStore, beat: Callable[[], None] = lambda: None
) -> bool:
    """Remove leftovers, unless another worker of this home does so or has done so lately. Returns whether it did."""
    lock = FileLock.try_acquire(settings.lease_folder / "housekeeping")
    if lock is None:
        return False
    with lock:
        since_s = time.time() - os.fstat(lock.handle).st_mtime
        was_done = os.fstat(lock.handle).st_size > 0
        if was_done and 0 <= since_s < EVERY_S:
            return False
        remove_work_folders(settings)
        retire_workers(ledger)
        freed_bytes = artifacts.sweep_garbage(older_than_s=UNUSED_S)
        freed_bytes += remove_orphans(ledger, artifacts, beat)
        lock.write(f"pid {os.getpid()}")  # its time is that of the last round; one that failed is tried again
        if freed_bytes:
            log.info("removed what dead workers left behind: %s", size(freed_bytes))
    return True


def remove_orphans(
    ledger: Ledger, artifacts: ArtifactStore, beat: Callable[[], None] = lambda: None, unused_s: float = UNUSED_S
) -> int:
    """Delete what this ledger's systems published for claims that were then lost; returns the bytes freed."""
    with ledger.read() as session:
        named = _named(session)
    candidates = []
    for artifact_id in artifacts.ids():
        beat()
        if artifact_id not in named and (manifest := _readable(artifacts, artifact_id)) is not None:
            candidates.append(manifest)
    if not candidates:
        return 0
    needed = {other for artifact_id in named for other in _requirements(artifacts, artifact_id)}
    freed_bytes = 0
    for manifest in candidates:
        beat()
        if manifest.id not in needed and _is_orphan(ledger, artifacts, manifest, unused_s):
            artifacts.delete(manifest.id)
            freed_bytes += manifest.size_bytes
            log.info("removed %s %s, which no row names: its claim was lost", manifest.kind, manifest.id)
    return freed_bytes


def retire_workers(ledger: Ledger) -> None:
    """Record that workers which have not been seen for a day are gone, so that no row says for ever that they run."""
    with ledger.write() as tx:
        silent = update(WorkerRow).where(is_expected(), WorkerRow.seen_at < tx.now - LISTED_S)
        tx.session.execute(silent.values(state="stopped", error=GONE))


def remove_work_folders(settings: Settings, unused_s: float = UNUSED_S) -> None:
    """Remove the work folders of workers' names that no process holds, and those of commands that were killed.

    A worker removes its predecessor's folder itself, but a slot may not be used again.
    """
    for folder in _unused_folders(settings, unused_s):
        doomed = folder.with_name(f".{folder.name}.gone")
        with suppress(FileNotFoundError):
            folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _unused_folders(settings: Settings, unused_s: float) -> Iterator[Path]:
    work = settings.work_folder
    for folder in sorted(work.iterdir()) if work.is_dir() else ():
        if time.time() - folder.stat().st_mtime < unused_s:
            continue
        name = settings.lease_folder / "names" / folder.name
        is_workers = _WORKER.fullmatch(folder.name) is not None and not (name.exists() and is_locked(name))
        if is_workers or folder.name.startswith(_COMMAND) or folder.name.endswith(".gone"):
            yield folder


def _named(session: Session) -> set[str]:
    """Every artifact that any row names, but for those of checkpoints that retention has deleted."""
    found: set[str | None] = set()
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            if column.name == "artifact" or column.name.endswith("_artifact"):
                query = select(column).distinct()
                if table.name == CheckpointRow.__tablename__:
                    query = query.where(CheckpointRow.state != _DELETED)
                found |= set(session.scalars(query))
    return {artifact for artifact in found if artifact is not None}


def _is_orphan(ledger: Ledger, artifacts: ArtifactStore, manifest: Manifest, unused_s: float) -> bool:
    """Whether it is this ledger's and still unnamed, and has not been published again for a while."""
    field = _PARENTS.get(manifest.kind)
    if field is None or time.time() - artifacts.published_at(manifest.id) < unused_s:
        return False
    with ledger.read() as session:
        parent = manifest.provenance.get(field)
        is_ours = isinstance(parent, str) and session.get(CheckpointRow, parent) is not None
        return is_ours and manifest.id not in _named(session)


def _requirements(artifacts: ArtifactStore, artifact_id: str) -> tuple[str, ...]:
    manifest = _readable(artifacts, artifact_id)
    return manifest.requires if manifest is not None else ()


def _readable(artifacts: ArtifactStore, artifact_id: str) -> Manifest | None:
    """The manifest, or None where it is absent or damaged."""
    try:
        return artifacts.manifest(artifact_id)
    except ArtifactError:
        return None

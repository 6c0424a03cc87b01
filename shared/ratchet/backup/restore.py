"""The way back from a backup: into an empty place, or over what is there when that is asked for.

Everything is verified before anything is written. The ledger comes last, so that an interrupted restore leaves a place
without one, and the same command goes on. Redis is not restored: events are hints, and whatever the ledger says is not
done yet is found by the systems' sweeps.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlalchemy import inspect, select
from sqlalchemy.engine import make_url

from ratchet.artifacts import ArtifactStore
from ratchet.backup.ledger_check import require_whole
from ratchet.backup.ledger_copy import opened_copy
from ratchet.backup.manifest import BackupManifest, artifacts_of
from ratchet.backup.rows import copy_rows, count_rows, delete_rows
from ratchet.disk import disk_trouble, sync_folder
from ratchet.errors import PreconditionFailed, TransientError
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import head, migrate, require_known
from ratchet.ledger.tables import Base, WorkerRow

ALIVE_S = 120.0
"""Every worker says that it is there twice a minute."""

PASSING = frozenset({"workers", "claims", "counters", "outbox"})
"""Tables that workers write to before there is anything to lose."""

Tell = Callable[[int, int, int], None]
"""Told after each artifact: how many are done, of how many, and their bytes."""


def restore(
    folder: Path, ledger_url: str, store: ArtifactStore, tell: Tell | None = None, *, force: bool = False
) -> BackupManifest:
    """Bring ledger and artifacts to what the backup in ``folder`` has; the artifacts of the place stay beside them.

    A backup of an older schema is migrated. An SQLite ledger that is replaced by ``force`` is kept beside the new one.
    Raises PreconditionFailed for a place that is in use or, without ``force``, not empty, and for a backup of a newer
    schema; ArtifactError for anything in the backup that is not what was written, no file, or not what its manifest
    says.
    """
    manifest = BackupManifest.read(folder)
    require_known(manifest.ledger.revision)
    _require_room(ledger_url, store, manifest, force)
    copy = manifest.ledger.verified(folder)
    require_whole(copy, manifest)
    artifacts = artifacts_of(folder)
    for artifact in manifest.artifacts:
        artifacts.verified(artifact)
    brought_bytes = 0
    for number, (artifact, size_bytes) in enumerate(manifest.artifacts.items(), start=1):
        store.take_from(artifacts, artifact)
        brought_bytes += size_bytes
        if tell is not None:
            tell(number, len(manifest.artifacts), brought_bytes)
    _restore_ledger(copy, ledger_url, manifest)
    return manifest


def _require_room(ledger_url: str, store: ArtifactStore, manifest: BackupManifest, force: bool) -> None:
    found, alive = _found(ledger_url)
    if alive:
        raise PreconditionFailed(
            f"{len(alive)} worker(s) are at work on the ledger that would be replaced ({', '.join(alive[:3])}): "
            f"stop them first; one that was killed counts as alive for {ALIVE_S:.0f} s."
        )
    if found and not force:
        raise PreconditionFailed(
            f"the ledger {make_url(ledger_url).render_as_string()} is not empty ({found}): restore into an empty "
            "place, or replace it with --force."
        )
    strangers = [artifact for artifact in store.ids() if artifact not in manifest.artifacts]
    if strangers and not force:
        raise PreconditionFailed(
            f"the store {store.url} has {len(strangers)} artifact(s) that this backup does not know: restore into an "
            "empty place, or let them lie beside the others with --force."
        )


def _found(ledger_url: str) -> tuple[str, list[str]]:
    """What is in the ledger already, in words, and who works on it."""
    path = _file(ledger_url)
    if path is not None and not path.exists():
        return "", []
    ledger = Ledger(ledger_url)
    try:
        with ledger.read() as session:
            there = set(inspect(session.connection()).get_table_names())
            if not there >= set(Base.metadata.tables):
                return ("tables of something else or of another version" if there else ""), []
            rows = count_rows(session.connection())
            recent = select(WorkerRow.name).where(
                WorkerRow.state != "stopped", WorkerRow.seen_at > ledger.now() - ALIVE_S
            )
            alive = list(session.scalars(recent.order_by(WorkerRow.name)))
    finally:
        ledger.close()
    held = [f"{count:,} rows in {name}" for name, count in rows.items() if count and name not in PASSING]
    return ", ".join(held[:2]), alive


def _restore_ledger(copy: Path, ledger_url: str, manifest: BackupManifest) -> None:
    path = _file(ledger_url)
    folder = path.parent if path is not None else Path(tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    with disk_trouble(folder), tempfile.TemporaryDirectory(prefix=".restore-", dir=folder) as work:
        draft = Path(work) / "ledger.db"
        manifest.ledger.copy_to(copy, draft)
        if manifest.ledger.revision != head():
            with opened_copy(draft) as older:
                migrate(older)
        if path is not None:
            _place(draft, path)
        else:
            _insert(draft, ledger_url)


def _place(draft: Path, path: Path) -> None:
    """Put the file where the ledger belongs, and one that is there beside it."""
    if path.exists():
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        kept = path.with_name(f"{path.name}.replaced-{int(path.stat().st_mtime)}")
        path.rename(kept)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    with open(draft, "rb") as file:
        os.fsync(file.fileno())
    draft.rename(path)
    sync_folder(path.parent)


def _insert(draft: Path, ledger_url: str) -> None:
    """All rows in one transaction, in the place of those that were there."""
    ledger = Ledger(ledger_url)
    try:
        migrate(ledger)
        with opened_copy(draft) as copy, copy.read() as source, ledger.write() as tx:
            target = tx.session.connection()
            delete_rows(target)
            copy_rows(source.connection(), target)
            if count_rows(target) != count_rows(source.connection()):
                raise TransientError("the ledger did not take every row of the backup; nothing was changed in it.")
    finally:
        ledger.close()


def _file(ledger_url: str) -> Path | None:
    """The file of an SQLite ledger, None for a server."""
    url = make_url(ledger_url)
    return Path(str(url.database)).resolve() if url.get_backend_name() == "sqlite" else None

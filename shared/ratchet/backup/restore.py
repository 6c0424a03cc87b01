"""Restores a backup, into an empty place or, on request, over an existing ledger.

Everything is verified before anything is written: every file by its digest, and the copied ledger against its
description in the manifest, since digests do not detect a wrong manifest. The ledger is written last, so that an
interrupted restore leaves no ledger, and the same command continues. Redis is not restored: the systems' sweeps find
unfinished work in the ledger.
"""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import inspect, select, text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import DBAPIError

from ratchet.artifacts import ArtifactStore
from ratchet.atomic_files import sync_folder
from ratchet.backup.backup import (
    KEPT_ARTIFACTS,
    MANIFEST,
    RETIRED_ARTIFACTS,
    REVISIONS,
    BackupManifest,
    ProgressCallback,
    artifacts_of,
    count_rows,
    needed_artifacts,
    opened_sqlite,
    postgres_tool,
    run_postgres_tool,
)
from ratchet.disk import disk_errors
from ratchet.errors import ArtifactError, DamagedLedger, PreconditionFailed
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import head, migrate, require_known
from ratchet.ledger.tables import Base, WorkerRow
from ratchet.printable import printable

ALIVE_S = 120.0
"""Every worker updates its row twice a minute."""

PASSING_TABLES = frozenset({"workers", "claims", "counters", "outbox"})
"""Tables that workers write to before a ledger has content worth keeping."""

NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
_TAKE_ANOTHER = "take another backup"


def restore(
    folder: Path,
    ledger_url: str,
    store: ArtifactStore,
    progress: ProgressCallback | None = None,
    *,
    force: bool = False,
) -> BackupManifest:
    """Restore ledger and artifacts from the backup in ``folder``; other artifacts of the store are kept.

    A backup of an older schema is migrated. An SQLite ledger that is replaced by ``force`` is kept beside the new one.
    Raises PreconditionFailed for a place that is in use, of another engine or, without ``force``, not empty, and for a
    backup of an unknown schema; ArtifactError for anything in the backup that is not what was written.
    """
    manifest = BackupManifest.read(folder)
    require_known(manifest.ledger.revision)
    _require_engine(ledger_url, manifest)
    _require_empty(ledger_url, store, manifest, force)
    copy = manifest.ledger.verified(folder)
    _require_as_described(copy, manifest)
    artifacts = artifacts_of(folder)
    for artifact in manifest.artifacts:
        artifacts.verified(artifact)
    restored_bytes = 0
    for number, (artifact, size_bytes) in enumerate(manifest.artifacts.items(), start=1):
        store.take_from(artifacts, artifact)
        restored_bytes += size_bytes
        if progress is not None:
            progress(number, len(manifest.artifacts), restored_bytes)
    if manifest.ledger.engine == "sqlite":
        _restore_sqlite(copy, ledger_url, manifest)
    else:
        _restore_postgres(copy, ledger_url, manifest, replace=force)
    return manifest


def _require_engine(ledger_url: str, manifest: BackupManifest) -> None:
    wanted, found = manifest.ledger.engine, make_url(ledger_url).get_backend_name()
    if found != wanted:
        raise PreconditionFailed(
            f"this backup is of a ledger in {NAMES[wanted]}, and `ledger.url` names one in {NAMES.get(found, found)}: "
            f"a ledger is restored to the engine that it came from; set `ledger.url` to one in {NAMES[wanted]}."
        )


def _require_empty(ledger_url: str, store: ArtifactStore, manifest: BackupManifest, force: bool) -> None:
    found, alive = _found(ledger_url)
    if alive:
        raise PreconditionFailed(
            f"{len(alive)} worker(s) are using the ledger that would be replaced ({',  '.join(alive[:3])}): "
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
            f"the store {store.url} has {len(strangers)} artifact(s) that are not in this backup: restore into an "
            "empty place, or keep them beside the others with --force."
        )


def _found(ledger_url: str) -> tuple[str, list[str]]:
    """A description of the existing ledger's content, and the workers that use it."""
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
    except DamagedLedger:
        return "a damaged file", []
    finally:
        ledger.close()
    held = [f"{count:,} rows in {name}" for name, count in rows.items() if count and name not in PASSING_TABLES]
    return ", ".join(held[:2]), alive


@dataclass
class _Contents:
    """The contents of a copied ledger."""

    revisions: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    artifacts: set[str] = field(default_factory=set)


def _require_as_described(copy: Path, manifest: BackupManifest) -> None:
    """Raise ArtifactError unless the copied ledger's revision, rows and artifacts match the manifest."""
    if manifest.ledger.revision is None:
        raise ArtifactError(f"{MANIFEST} names no revision of its ledger; {_TAKE_ANOTHER}.")
    found = _sqlite_contents(copy) if manifest.ledger.engine == "sqlite" else _dump_contents(copy)
    if not found.revisions:
        raise ArtifactError(f"{printable(copy)} holds no ledger: it has no revision; {_TAKE_ANOTHER}.")
    if found.revisions != [manifest.ledger.revision]:
        raise ArtifactError(
            f"{printable(copy)} is at {', '.join(found.revisions)}, where {MANIFEST} says {manifest.ledger.revision}; "
            f"{_TAKE_ANOTHER}."
        )
    if strangers := sorted(found.rows.keys() ^ manifest.ledger.rows.keys()):
        raise ArtifactError(
            f"{printable(copy)} is not what {MANIFEST} says: only one of them has {strangers[0]}; {_TAKE_ANOTHER}."
        )
    for name, expected in sorted(manifest.ledger.rows.items()):
        if found.rows[name] != expected:
            raise ArtifactError(
                f"{printable(copy)} has {found.rows[name]:,} rows in {name}, where {MANIFEST} says {expected:,}; "
                f"{_TAKE_ANOTHER}."
            )
    if missing := sorted(found.artifacts - manifest.artifacts.keys()):
        raise ArtifactError(
            f"{MANIFEST} does not list {len(missing):,} artifact(s) that {printable(copy)} needs, {missing[0]} first; "
            f"{_TAKE_ANOTHER}."
        )


def _sqlite_contents(copy: Path) -> _Contents:
    try:
        with opened_sqlite(copy) as connection:
            _require_sound(connection, copy)
            tables = set(inspect(connection).get_table_names())
            if REVISIONS not in tables:
                return _Contents()
            revisions = [
                str(revision) for (revision,) in connection.execute(text(f"SELECT version_num FROM {REVISIONS}"))
            ]
            counts = {name: f'SELECT count(*) FROM "{name}"' for name in tables - {REVISIONS}}
            rows = {name: int(connection.execute(text(query)).scalar_one()) for name, query in counts.items()}
            is_complete = rows.keys() >= Base.metadata.tables.keys()
            return _Contents(revisions, rows, needed_artifacts(connection) if is_complete else set())
    except DBAPIError as error:
        raise ArtifactError(
            f"{printable(copy)} is not a readable SQLite file ({error.orig}); {_TAKE_ANOTHER}."
        ) from error


def _require_sound(connection: Connection, copy: Path) -> None:
    state = connection.execute(text("PRAGMA integrity_check")).scalar_one()
    orphan = connection.execute(text("PRAGMA foreign_key_check")).first()
    if state != "ok" or orphan is not None:
        why = state if orphan is None else f"a row of {orphan[0]} refers to one of {orphan[2]} that is not there"
        raise ArtifactError(f"{printable(copy)} is not sound ({why}); {_TAKE_ANOTHER}.")


_COPY = re.compile(r'COPY (?:\w+\.)?"?(\w+)"? \((.*)\) FROM stdin;')
_NULL = r"\N"


def _dump_contents(copy: Path) -> _Contents:
    """Read the dump without a server: ``pg_restore`` prints it as SQL, with the rows in COPY blocks."""
    kept = {(column.class_.__tablename__, column.key) for column in KEPT_ARTIFACTS}
    retired = {(column.class_.__tablename__, column.key) for column in RETIRED_ARTIFACTS}
    found = _Contents()
    table, columns = "", list[str]()
    for line in _dumped_lines(copy):
        if not table:
            if (block := _COPY.fullmatch(line)) is not None:
                table, columns = block[1], [name.strip('" ') for name in block[2].split(",")]
                if table != REVISIONS:
                    found.rows[table] = 0
        elif line == r"\.":
            table = ""
        elif table == REVISIONS:
            found.revisions.append(line)
        else:
            found.rows[table] += 1
            row = dict(zip(columns, line.split("\t"), strict=True))
            named = {value for name, value in row.items() if (table, name) in kept}
            if row.get("state") == "saved":
                named |= {value for name, value in row.items() if (table, name) in retired}
            found.artifacts |= named - {_NULL}
    return found


def _dumped_lines(copy: Path) -> Iterator[str]:
    command = [postgres_tool("pg_restore"), "--data-only", "--file=-", str(copy)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            yield line.decode().rstrip("\n")
        stderr = process.stderr.read()
    if process.returncode != 0:
        raise ArtifactError(f"{printable(copy)} is not a readable dump ({stderr.decode().strip()}); {_TAKE_ANOTHER}.")


def _restore_sqlite(copy: Path, ledger_url: str, manifest: BackupManifest) -> None:
    path = _file(ledger_url)
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    with disk_errors(path.parent), tempfile.TemporaryDirectory(prefix=".restore-", dir=path.parent) as work:
        draft = Path(work) / "ledger.db"
        manifest.ledger.copy_to(copy, draft)
        if manifest.ledger.revision != head():
            _migrate(f"sqlite:///{draft}")
        _place(draft, path)


def _place(draft: Path, path: Path) -> None:
    """Move the file to the ledger's path; an existing one is kept beside it."""
    if path.exists():
        with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(path)) as connection:  # a damaged one has none
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        kept = path.with_name(f"{path.name}.replaced-{int(path.stat().st_mtime)}")
        path.rename(kept)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    with open(draft, "rb") as file:
        os.fsync(file.fileno())
    draft.rename(path)
    sync_folder(path.parent)


def _restore_postgres(copy: Path, ledger_url: str, manifest: BackupManifest, *, replace: bool) -> None:
    """In one transaction, so that a failure leaves the database as it was."""
    options = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
    if replace:
        options += ["--clean", "--if-exists"]
    run_postgres_tool("pg_restore", *options, str(copy), url=ledger_url)
    if manifest.ledger.revision != head():
        _migrate(ledger_url)


def _migrate(url: str) -> None:
    ledger = Ledger(url)
    try:
        migrate(ledger)
    finally:
        ledger.close()


def _file(ledger_url: str) -> Path | None:
    """The file of an SQLite ledger, or None for a server."""
    url = make_url(ledger_url)
    return Path(str(url.database)).resolve() if url.get_backend_name() == "sqlite" else None

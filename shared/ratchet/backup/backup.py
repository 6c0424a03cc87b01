"""Makes a backup while everything runs: the ledger with its engine's own tool, and a copy of every artifact.

Existing artifacts are copied first, then the ledger, then newer artifacts. Everything that the copied ledger names was
published before, so only artifacts that retention has deleted meanwhile can be missing; then the ledger is copied
again. SQLite is copied by its online backup, PostgreSQL by ``pg_dump``; a backup is restored to the same engine.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.pool import NullPool

from ratchet import __version__
from ratchet.artifacts import ArtifactFolder, ArtifactStore
from ratchet.atomic_files import atomic_write
from ratchet.disk import disk_errors
from ratchet.errors import ArtifactError, PreconditionFailed, TransientError
from ratchet.file_lock import FileLock
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import head, require_current
from ratchet.ledger.tables import Base, BatchRow, CheckpointRow, EvaluationRow, MinedRow, SuiteRow
from ratchet.removed import is_removed
from ratchet.user_files import open_regular

MANIFEST = "backup.json"
ARTIFACTS = "artifacts"
REVISIONS = "alembic_version"
"""Alembic's own table: one row, the ledger's schema."""

Engine = Literal["sqlite", "postgresql"]
SUFFIXES: Mapping[str, str] = {"sqlite": "db", "postgresql": "dump"}

MAX_LEDGER_COPIES = 5
SPARE_BYTES = 50_000_000
_DRAFT = "ledger.draft"
_OUR_PREFIXES = ("ledger-", _DRAFT, f".{MANIFEST}.")
_CHUNK_BYTES = 1 << 20

ProgressCallback = Callable[[int, int, int], None]
"""Called after each artifact with how many are done, of how many, and the bytes copied."""

Column = InstrumentedAttribute[str] | InstrumentedAttribute[str | None]

KEPT_ARTIFACTS: tuple[Column, ...] = (
    BatchRow.submitted_artifact,
    BatchRow.artifact,
    BatchRow.quarantine_artifact,
    MinedRow.artifact,
    SuiteRow.artifact,
    EvaluationRow.artifact,
)
"""Columns whose artifacts are kept, but for those that a row says retention has removed."""

RETIRED_ARTIFACTS: tuple[Column, ...] = (CheckpointRow.artifact, CheckpointRow.state_artifact)
"""Columns whose artifacts retention deletes; the row stays, with a ``state`` other than saved."""


class LedgerCopy(BaseModel):
    """The copied ledger: an SQLite file, or a dump of PostgreSQL. ``rows`` counts them by table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Engine
    file: str = Field(pattern=r"^ledger-[0-9a-f]{16}\.(db|dump)$")
    sha256: str
    size_bytes: int
    revision: str | None
    rows: Mapping[str, int]

    @model_validator(mode="after")
    def _file_is_of_this_engine(self) -> Self:
        if not self.file.endswith(f".{SUFFIXES[self.engine]}"):
            raise ValueError(f"a {self.engine} ledger is kept in a .{SUFFIXES[self.engine]} file")
        return self

    @classmethod
    def of(cls, path: Path, engine: Engine, revision: str | None, rows: Mapping[str, int]) -> LedgerCopy:
        """Rename ``path`` to its name by content, and describe it."""
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        name = f"ledger-{sha256[:16]}.{SUFFIXES[engine]}"
        size_bytes = path.replace(path.parent / name).stat().st_size
        return cls(engine=engine, file=name, sha256=sha256, size_bytes=size_bytes, revision=revision, rows=rows)

    def verified(self, folder: Path) -> Path:
        """The path of the file. Raises ArtifactError where it is absent or not what was written."""
        path = folder / self.file
        if not os.path.lexists(path):
            raise ArtifactError(f"{path} is missing: this backup has lost its ledger; take another one.")
        with open_regular(path, ArtifactError) as file:
            self._require_same(hashlib.file_digest(file, "sha256").hexdigest(), path)
        return path

    def copy_to(self, path: Path, target: Path) -> None:
        """Copy the verified file, and verify the copy."""
        digest = hashlib.sha256()
        with open_regular(path, ArtifactError) as source, open(target, "wb") as copy:
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                copy.write(chunk)
        self._require_same(digest.hexdigest(), path)

    def _require_same(self, sha256: str, path: Path) -> None:
        if sha256 != self.sha256:
            raise ArtifactError(f"{path} is damaged: its content is not what was written; take another backup.")


class BackupManifest(BaseModel):
    """``version`` is Ratchet's. ``artifacts`` has the size in bytes of each by its id."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    version: str
    made_at: float
    ledger: LedgerCopy
    artifacts: Mapping[str, int]

    @property
    def size_bytes(self) -> int:
        return self.ledger.size_bytes + sum(self.artifacts.values())

    def write(self, folder: Path) -> None:
        atomic_write(folder / MANIFEST, self.model_dump_json(indent=1) + "\n", durable=True)

    @classmethod
    def read(cls, folder: Path) -> BackupManifest:
        """Raises PreconditionFailed without a finished backup, ArtifactError for a manifest that cannot be read."""
        path = folder / MANIFEST
        if not os.path.lexists(path):
            raise PreconditionFailed(f"{folder} holds no finished backup: there is no {MANIFEST} in it.")
        with open_regular(path, ArtifactError) as file:
            content = file.read()
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "it"
            raise ArtifactError(
                f"{path} cannot be read ({where}: {first['msg']}): it is damaged, or of a newer version of Ratchet; "
                "restore with that version, or take another backup."
            ) from error


@dataclass(frozen=True)
class FinishedBackup:
    """``copied`` artifacts were new to the folder; ``removed`` ones were no longer needed.

    ``damaged`` are damaged artifacts of the store that the ledger does not need, each with the error.
    """

    manifest: BackupManifest
    copied: int
    copied_bytes: int
    removed: int
    damaged: dict[str, str]


def make(
    ledger: Ledger,
    store: ArtifactStore,
    folder: Path,
    progress: ProgressCallback | None = None,
    *,
    reread: bool = False,
) -> FinishedBackup:
    """Update the backup in ``folder``; only new artifacts are copied. The previous backup stays until the end.

    ``reread`` also verifies the digests of the artifacts that are in the folder already. Raises PreconditionFailed for
    a folder with other content, ArtifactError for a damaged or missing artifact that the ledger needs, TransientError
    for a full disk.
    """
    with disk_errors(folder), locked(folder):
        copier = _ArtifactCopier(store, artifacts_of(folder), progress or _no_progress, reread)
        copier.copy(store.ids())
        ledger_copy, artifacts = _copy_consistently(ledger, store, folder, copier)
        manifest = BackupManifest(
            version=__version__, made_at=ledger.now(), ledger=ledger_copy, artifacts=dict(sorted(artifacts.items()))
        )
        manifest.write(folder)
        removed = _prune(folder, manifest)
        return FinishedBackup(manifest, copier.copied, copier.copied_bytes, removed, copier.damaged)


def artifacts_of(folder: Path) -> ArtifactFolder:
    """The artifacts of a backup."""
    return ArtifactFolder(folder / ARTIFACTS)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder for one backup at a time. Raises PreconditionFailed where it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _require_ours(folder)
        (folder / ARTIFACTS).mkdir(exist_ok=True)
        lock = FileLock.try_acquire(folder)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise PreconditionFailed(f"user {os.geteuid()} cannot write to {folder}: {error.strerror}.") from error
    if lock is None:
        raise PreconditionFailed(f"another backup is being written to {folder}: wait until it has finished.")
    with lock:
        yield


def count_rows(connection: Connection) -> dict[str, int]:
    """Rows by table."""
    return {
        table.name: int(connection.execute(select(func.count()).select_from(table)).scalar_one())
        for table in Base.metadata.sorted_tables
    }


def needed_artifacts(connection: Connection) -> set[str]:
    """Ids of all artifacts that the ledger needs."""
    found: set[str | None] = set()
    for column in KEPT_ARTIFACTS:
        found |= set(connection.scalars(select(column)))
    for column in RETIRED_ARTIFACTS:
        found |= set(connection.scalars(select(column).where(CheckpointRow.state == "saved")))
    return {artifact for artifact in found if artifact is not None and not is_removed(artifact)}


def run_postgres_tool(name: str, *arguments: str, url: str) -> None:
    """Run ``pg_dump`` or ``pg_restore``, connected to the ledger at ``url``.

    The password is passed in the environment, which other users cannot read. Raises PreconditionFailed where the tool
    is not installed or fails.
    """
    database, password = postgres_address(url)
    environment = {**os.environ, **({"PGPASSWORD": password} if password is not None else {})}
    command = [postgres_tool(name), *arguments, f"--dbname={database}"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    if done.returncode != 0:
        raise PreconditionFailed(f"{name} failed: {' '.join(done.stderr.decode(errors='replace').split())}")


def postgres_address(url: str) -> tuple[str, str | None]:
    """The ledger's URL as libpq reads it, without its password, and the password."""
    address = make_url(url).set(drivername="postgresql")
    # URL.set takes None for "leave it", and a URL with a password is rendered with *** in its place.
    return address._replace(password=None).render_as_string(), None if address.password is None else str(
        address.password
    )


def postgres_tool(name: str) -> str:
    """The path of a PostgreSQL client program, the newest if there are several."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    found = str(installed[-1]) if installed else shutil.which(name)
    if found is None:
        raise PreconditionFailed(
            f"{name} is not installed here, and a ledger in PostgreSQL is backed up and restored with it: install the "
            "client programs (`apt-get install postgresql-client`) of the server's version or a later one."
        )
    return found


def _copy_consistently(
    ledger: Ledger, store: ArtifactStore, folder: Path, copier: _ArtifactCopier
) -> tuple[LedgerCopy, dict[str, int]]:
    """A copy of the ledger whose artifacts are all in the backup, and the sizes of those and of all the store's."""
    for _ in range(MAX_LEDGER_COPIES):
        ledger_copy, needed = _copy_ledger(ledger, folder)
        wanted = needed | set(store.ids())
        copier.copy(wanted)
        missing = needed - copier.sizes.keys()
        if not missing:
            return ledger_copy, {id_: size for id_, size in copier.sizes.items() if id_ in wanted}
        with ledger.read() as session:
            lost = sorted(missing & needed_artifacts(session.connection()))
        if lost:
            raise _incomplete(lost, copier.damaged)
    raise PreconditionFailed(
        f"retention deleted artifacts faster than they could be copied, {MAX_LEDGER_COPIES} times; try again."
    )


def _incomplete(lost: list[str], damaged: dict[str, str]) -> ArtifactError:
    first = damaged.get(lost[0], f"artifact {lost[0]} is not in the store")
    return ArtifactError(
        f"the ledger needs {len(lost)} artifact(s) that cannot be copied, so the backup would not be complete: "
        f"{first} The previous backup in the folder is unchanged."
    )


def _copy_ledger(ledger: Ledger, folder: Path) -> tuple[LedgerCopy, set[str]]:
    """Copy the ledger into ``folder`` while others write; returns the copy and the artifacts that it needs."""
    require_current(ledger)
    draft = folder / _DRAFT
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)  # rows and answers are in it; what copies the ledger keeps the mode
    if ledger.dialect == "sqlite":
        rows, needed = _copy_sqlite(ledger, draft)
        return LedgerCopy.of(draft, "sqlite", head(), rows), needed
    rows, needed = _dump_postgres(ledger, draft)
    return LedgerCopy.of(draft, "postgresql", head(), rows), needed


def _copy_sqlite(ledger: Ledger, draft: Path) -> tuple[dict[str, int], set[str]]:
    source = str(ledger.engine.url.database)
    with (
        sqlite_errors(draft),
        closing(sqlite3.connect(source, timeout=30.0)) as original,
        closing(sqlite3.connect(draft)) as copy,
    ):
        original.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        state = copy.execute("PRAGMA integrity_check").fetchone()[0]
        orphans = copy.execute("PRAGMA foreign_key_check").fetchall()
    if state != "ok" or orphans:
        raise TransientError(f"the copy of the ledger at {draft} is not sound ({state}): check that disk.")
    with opened_sqlite(draft) as connection:
        return count_rows(connection), needed_artifacts(connection)


def _dump_postgres(ledger: Ledger, draft: Path) -> tuple[dict[str, int], set[str]]:
    """Dump and count in one snapshot, so that they agree while others write."""
    tables = [f"--table={name}" for name in (REVISIONS, *Base.metadata.tables)]
    snapshot = ledger.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with snapshot.connect() as connection:
        name = connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()
        options = ("--format=custom", "--no-owner", "--no-privileges", f"--snapshot={name}", f"--file={draft}")
        run_postgres_tool("pg_dump", *options, *tables, url=ledger.engine.url.render_as_string(hide_password=False))
        return count_rows(connection), needed_artifacts(connection)


@contextmanager
def opened_sqlite(path: Path) -> Iterator[Connection]:
    """A copied ledger, opened read-only. ``immutable`` keeps SQLite from looking for or creating a log file."""
    address = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(address, uri=True), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise TransientError(f"the copy of the ledger at {path} fails: {error}.") from error


class _ArtifactCopier:
    """Copies artifacts into a backup; ``sizes`` has the sizes of those in it."""

    def __init__(self, store: ArtifactStore, folder: ArtifactFolder, progress: ProgressCallback, reread: bool) -> None:
        self._store, self._folder, self._progress, self._reread = store, folder, progress, reread
        self.sizes: dict[str, int] = {}
        self.damaged: dict[str, str] = {}
        self.copied, self.copied_bytes = 0, 0

    def copy(self, artifacts: Iterable[str]) -> None:
        """Copy those that are not in the backup. Deleted and damaged ones are left out."""
        waiting = sorted(set(artifacts) - self.sizes.keys())
        for number, artifact in enumerate(waiting, start=1):
            try:
                self._copy(artifact)
                self.damaged.pop(artifact, None)
            except ArtifactError as error:
                if self._store.exists(artifact):
                    self.damaged[artifact] = str(error)
            self._progress(number, len(waiting), self.copied_bytes)

    def _copy(self, artifact: str) -> None:
        if self._is_there(artifact):
            self.sizes[artifact] = self._folder.manifest(artifact).size_bytes
            return
        size_bytes = self._store.size_bytes(artifact)
        _require_space(self._folder.root, size_bytes)
        self.sizes[artifact] = self._store.copy_to(self._folder, artifact).size_bytes
        self.copied, self.copied_bytes = self.copied + 1, self.copied_bytes + size_bytes

    def _is_there(self, artifact: str) -> bool:
        if not self._folder.exists(artifact):
            return False
        if self._reread:
            return self._folder.intact(artifact) is not None
        return self._folder.has_all(self._folder.manifest(artifact))


def _require_space(folder: Path, size_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder.parent).free
    if free_bytes < size_bytes + SPARE_BYTES:
        raise PreconditionFailed(
            f"the disk of {folder.parent} is full: {free_bytes:,} bytes are free, and the next artifact has "
            f"{size_bytes:,}. What was copied is kept; with more space the same command continues from here."
        )


def _prune(folder: Path, manifest: BackupManifest) -> int:
    """Remove what this backup does not need from earlier ones in the folder; returns the number of removed
    artifacts."""
    for file in folder.glob("ledger-*"):
        if file.name != manifest.ledger.file:
            file.unlink()
    artifacts = artifacts_of(folder)
    old = [artifact for artifact in artifacts.ids() if artifact not in manifest.artifacts]
    for artifact in old:
        artifacts.delete(artifact)
    artifacts.sweep_garbage(older_than_s=0)
    return len(old)


def _require_ours(folder: Path) -> None:
    for name in sorted(path.name for path in folder.iterdir()):
        if name not in (ARTIFACTS, MANIFEST, "lost+found") and not name.startswith(_OUR_PREFIXES):
            raise PreconditionFailed(f"{folder} contains something else ({name}): give a backup its own folder.")


def _no_progress(_done: int, _of: int, _copied_bytes: int) -> None:
    pass

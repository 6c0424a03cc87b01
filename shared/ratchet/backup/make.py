"""Making a backup while everything runs.

Artifacts that are there are copied first, then the ledger, then what has come since. Whatever the copied ledger names
was published before, so it can lack only what retention has deleted meanwhile: then the ledger is copied again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ratchet import __version__
from ratchet.artifacts import ArtifactStore
from ratchet.artifacts.folder import ArtifactFolder
from ratchet.backup.ledger_copy import DRAFT, copy_ledger
from ratchet.backup.manifest import ARTIFACTS, MANIFEST, BackupManifest, LedgerCopy, artifacts_of
from ratchet.backup.named import named
from ratchet.disk import disk_trouble
from ratchet.errors import ArtifactError, PreconditionFailed
from ratchet.file_lock import FileLock
from ratchet.ledger import Ledger

MOST_SNAPSHOTS = 5
SPARE_BYTES = 50_000_000
OURS = ("ledger-", DRAFT, f".{MANIFEST}.")
"""How the names of what a backup writes beside its artifacts begin."""

Tell = Callable[[int, int, int], None]
"""Told after each artifact: how many are done, of how many, and the bytes copied."""


@dataclass(frozen=True)
class Made:
    """A finished backup. ``copied`` artifacts were new to the folder; ``removed`` ones are not needed any more.

    ``damaged`` are artifacts of the store, each with what is wrong, that the ledger does not count on.
    """

    manifest: BackupManifest
    copied: int
    copied_bytes: int
    removed: int
    damaged: dict[str, str]


def make(ledger: Ledger, store: ArtifactStore, folder: Path, tell: Tell | None = None, *, reread: bool = False) -> Made:
    """Bring the backup in ``folder`` up to date; only what is new is copied. The backup before stays until then.

    ``reread`` compares what is there already with its digests too. Raises PreconditionFailed for a folder of something
    else, ArtifactError for an artifact that the ledger needs and that is damaged or gone, TransientError for a full
    disk.
    """
    with disk_trouble(folder), locked(folder):
        copying = _Copying(store, artifacts_of(folder), tell or _silent, reread)
        copying.bring(store.ids())
        ledger_copy, artifacts = _consistent(ledger, store, folder, copying)
        manifest = BackupManifest(
            version=__version__, made_at=ledger.now(), ledger=ledger_copy, artifacts=dict(sorted(artifacts.items()))
        )
        manifest.write(folder)
        removed = _prune(folder, manifest)
        return Made(manifest, copying.copied, copying.copied_bytes, removed, copying.damaged)


def _consistent(
    ledger: Ledger, store: ArtifactStore, folder: Path, copying: _Copying
) -> tuple[LedgerCopy, dict[str, int]]:
    """A copy of the ledger whose artifacts are all in the backup, and the bytes of those and of all the store has."""
    for _ in range(MOST_SNAPSHOTS):
        ledger_copy, needed = copy_ledger(ledger, folder)
        wanted = needed | set(store.ids())
        copying.bring(wanted)
        missing = needed - copying.sizes.keys()
        if not missing:
            return ledger_copy, {id_: size for id_, size in copying.sizes.items() if id_ in wanted}
        with ledger.read() as session:
            lost = sorted(missing & named(session))
        if lost:
            raise _incomplete(lost, copying.damaged)
    raise PreconditionFailed(
        f"retention deleted artifacts faster than they could be copied, {MOST_SNAPSHOTS} times; try again."
    )


def _incomplete(lost: list[str], damaged: dict[str, str]) -> ArtifactError:
    first = damaged.get(lost[0], f"artifact {lost[0]} is not in the store")
    return ArtifactError(
        f"the ledger counts on {len(lost)} artifact(s) that cannot be copied, so the backup would not be whole: "
        f"{first} The backup that was in the folder before is as it was."
    )


class _Copying:
    """Artifacts on their way into a backup; ``sizes`` has the bytes of those that are in it."""

    def __init__(self, store: ArtifactStore, folder: ArtifactFolder, tell: Tell, reread: bool) -> None:
        self._store, self._folder, self._tell, self._reread = store, folder, tell, reread
        self.sizes: dict[str, int] = {}
        self.damaged: dict[str, str] = {}
        self.copied, self.copied_bytes = 0, 0

    def bring(self, artifacts: Iterable[str]) -> None:
        """Copy those that are not in the backup. One that is gone meanwhile, or damaged, is left out."""
        waiting = sorted(set(artifacts) - self.sizes.keys())
        for number, artifact in enumerate(waiting, start=1):
            try:
                self._bring(artifact)
                self.damaged.pop(artifact, None)
            except ArtifactError as error:
                if self._store.exists(artifact):
                    self.damaged[artifact] = str(error)
            self._tell(number, len(waiting), self.copied_bytes)

    def _bring(self, artifact: str) -> None:
        if self._is_there(artifact):
            self.sizes[artifact] = self._folder.manifest(artifact).size_bytes
            return
        size_bytes = self._store.size_bytes(artifact)
        _require_room(self._folder.root, size_bytes)
        self.sizes[artifact] = self._store.copy_to(self._folder, artifact).size_bytes
        self.copied, self.copied_bytes = self.copied + 1, self.copied_bytes + size_bytes

    def _is_there(self, artifact: str) -> bool:
        if not self._folder.exists(artifact):
            return False
        if self._reread:
            return self._folder.intact(artifact) is not None
        return self._folder.has_all(self._folder.manifest(artifact))


def _require_room(folder: Path, size_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder.parent).free
    if free_bytes < size_bytes + SPARE_BYTES:
        raise PreconditionFailed(
            f"the disk of {folder.parent} is full: {free_bytes:,} bytes are free, and the next artifact has "
            f"{size_bytes:,}. What was copied stays; with more room the same command goes on from here."
        )


def _prune(folder: Path, manifest: BackupManifest) -> int:
    """Remove what earlier backups in the folder had and this one does not need; returns the artifacts removed."""
    for file in folder.glob("ledger-*.db"):
        if file.name != manifest.ledger.file:
            file.unlink()
    artifacts = artifacts_of(folder)
    old = [artifact for artifact in artifacts.ids() if artifact not in manifest.artifacts]
    for artifact in old:
        artifacts.delete(artifact)
    artifacts.sweep_garbage(older_than_s=0)
    return len(old)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder for one backup at a time. Raises PreconditionFailed where it is not ours to write to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _require_ours(folder)
        (folder / ARTIFACTS).mkdir(exist_ok=True)
        lock = FileLock.try_acquire(folder)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise PreconditionFailed(f"user {os.geteuid()} cannot write to {folder}: {error.strerror}.") from error
    if lock is None:
        raise PreconditionFailed(f"another backup is being written to {folder}: wait for its end.")
    with lock:
        yield


def _require_ours(folder: Path) -> None:
    for name in sorted(path.name for path in folder.iterdir()):
        if name not in (ARTIFACTS, MANIFEST, "lost+found") and not name.startswith(OURS):
            raise PreconditionFailed(f"{folder} holds something else ({name}): give a backup a folder of its own.")


def _silent(_done: int, _of: int, _copied_bytes: int) -> None:
    """Nobody wants to know."""

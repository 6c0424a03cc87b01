"""Artifacts as folders of a local disk: the ``file://`` store, and the cache of a remote one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from ratchet.artifacts.manifest import MANIFEST_NAME, Manifest, checked_id
from ratchet.artifacts.staging import Fingerprint, Staging, abandoned, absent, chunks, damaged, fingerprint, staging
from ratchet.disk import disk_trouble, sync_folder
from ratchet.errors import ArtifactError
from ratchet.files import open_regular

_STAGING = ".staging"


class ArtifactFolder:
    """``<root>/<id>/``: a folder appears there by one rename, complete with its manifest."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._verified: dict[Fingerprint, str] = {}

    def path(self, artifact_id: str) -> Path:
        return self.root / checked_id(artifact_id)

    def exists(self, artifact_id: str) -> bool:
        return (self.path(artifact_id) / MANIFEST_NAME).is_file()

    def ids(self) -> Iterator[str]:
        for folder in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            if folder.name != _STAGING and (folder / MANIFEST_NAME).is_file():
                yield folder.name

    def manifest(self, artifact_id: str) -> Manifest:
        path = self.path(artifact_id) / MANIFEST_NAME
        try:
            with open_regular(path, ArtifactError) as file:
                manifest = Manifest.parse(file.read(), str(path))
        except ArtifactError as error:
            if not os.path.lexists(path):
                raise absent(artifact_id, path) from error
            raise
        if manifest.id != artifact_id:
            raise damaged(path, f"it describes {manifest.id}")
        return manifest

    def verified(self, artifact_id: str) -> Manifest:
        """The manifest, after every file was compared with it; unchanged files are hashed once a process."""
        manifest, folder = self.manifest(artifact_id), self.path(artifact_id)
        expected = {file.path: file for file in manifest.files}
        if strangers := sorted(_file_paths(folder) - expected.keys() - {MANIFEST_NAME}):
            raise damaged(folder / strangers[0], "it is not in the manifest")
        for path, file in expected.items():
            self._verify(folder / path, file.size_bytes, file.sha256)
        return manifest

    def intact(self, artifact_id: str) -> Manifest | None:
        """Like ``verified``, but None for one that is absent or damaged."""
        try:
            return self.verified(artifact_id)
        except ArtifactError:
            return None

    def put(self, fill: Callable[[Staging], Manifest], needed_bytes: int | None = None) -> Manifest:
        """Let ``fill`` build an artifact, then give it its name. Content that is here already stays."""
        with disk_trouble(self.root, needed_bytes), staging(self.root / _STAGING) as draft:
            manifest = fill(draft)
            self._verified.update(draft.fingerprints)
            if (earlier := self.intact(manifest.id)) is not None:
                return earlier
            self._settle(draft.folder, manifest.id)
            return self.manifest(manifest.id)

    def read_into(self, draft: Staging, manifest: Manifest) -> Manifest:
        """Copy every file into ``draft``, compared with the manifest on the way."""
        for file in manifest.files:
            path = self.path(manifest.id) / file.path
            try:
                draft.add_expected(chunks(path), file, str(path))
            except ArtifactError as error:
                if not os.path.lexists(path):
                    raise damaged(path, "it is missing") from error
                raise
        draft.seal_as(manifest)
        return manifest

    def has_all(self, manifest: Manifest) -> bool:
        """Whether the artifact is there with every file in its size; what is in them is not read."""
        folder = self.path(manifest.id)
        sizes = {path: (folder / path).lstat().st_size for path in _file_paths(folder)}
        return self.exists(manifest.id) and all(sizes.get(file.path) == file.size_bytes for file in manifest.files)

    def delete(self, artifact_id: str) -> None:
        """Out of sight by one rename, then removed; absent already is fine."""
        grave = self._grave()
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path(artifact_id), grave)
        shutil.rmtree(grave, ignore_errors=True)

    def sweep_garbage(self, older_than_s: float) -> int:
        """Remove what dead publishers left behind; returns the bytes freed."""
        garbage = [*abandoned(self.root / _STAGING, older_than_s), *self._headless(older_than_s)]
        freed_bytes = sum(_size_bytes(folder) for folder in garbage)
        for folder in garbage:
            shutil.rmtree(folder, ignore_errors=True)
        return freed_bytes

    def touch(self, artifact_id: str) -> None:
        """Note the use of an artifact, for ``trim``."""
        os.utime(self.path(artifact_id))

    def trim(self, most_bytes: int, unused_for_s: float) -> int:
        """Delete the artifacts unused longest until ``most_bytes`` are left; returns the bytes freed."""
        sizes = {artifact_id: _size_bytes(self.path(artifact_id)) for artifact_id in self.ids()}
        used_at = {artifact_id: self.path(artifact_id).stat().st_mtime for artifact_id in sizes}
        excess_bytes, freed_bytes = sum(sizes.values()) - most_bytes, 0
        for artifact_id in sorted(sizes, key=used_at.__getitem__):
            if freed_bytes < excess_bytes and time.time() - used_at[artifact_id] >= unused_for_s:
                self.delete(artifact_id)
                freed_bytes += sizes[artifact_id]
        return freed_bytes

    def _headless(self, older_than_s: float) -> Iterator[Path]:
        for folder in self.root.iterdir() if self.root.is_dir() else ():
            is_artifact = folder.name == _STAGING or (folder / MANIFEST_NAME).exists()
            if folder.is_dir() and not is_artifact and time.time() - folder.stat().st_mtime >= older_than_s:
                yield folder

    def _settle(self, draft: Path, artifact_id: str) -> None:
        """Rename ``draft`` to its id; a damaged artifact there gives way, an intact one stays."""
        home = self.path(artifact_id)
        while True:
            try:
                os.rename(draft, home)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            if self.intact(artifact_id) is not None:
                return
            self.delete(artifact_id)
        sync_folder(self.root)

    def _grave(self) -> Path:
        graves = self.root / _STAGING
        graves.mkdir(parents=True, exist_ok=True)
        return graves / uuid.uuid4().hex

    def _verify(self, path: Path, size_bytes: int, sha256: str) -> None:
        try:
            with disk_trouble(self.root), open_regular(path, ArtifactError) as file:
                stat = os.fstat(file.fileno())
                if stat.st_size != size_bytes:
                    raise damaged(path, f"it holds {stat.st_size:,} bytes where {size_bytes:,} were published")
                if self._verified.get(fingerprint(stat)) != sha256:
                    if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                        raise damaged(path, "its content is not what was published (sha256 differs)")
                    self._verified[fingerprint(stat)] = sha256
        except ArtifactError as error:
            if not os.path.lexists(path):
                raise damaged(path, "it is missing") from error
            raise


def _file_paths(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def _size_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())

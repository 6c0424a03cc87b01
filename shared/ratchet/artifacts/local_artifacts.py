"""Artifacts as folders of a local disk: the ``file://`` store, and the cache of a remote one.

An artifact is built in a staging folder, where its files are hashed as they arrive, and appears under its id by one
rename, complete with its manifest. It does not know remote stores.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ratchet.artifacts.manifest import MANIFEST_NAME, Kind, Manifest, ManifestFile, checked_id
from ratchet.atomic_files import sync_folder, try_chmod
from ratchet.disk import disk_errors, private_folder
from ratchet.errors import ArtifactError
from ratchet.file_lock import FileLock, is_locked
from ratchet.user_files import open_regular

_CHUNK_BYTES = 1 << 20
_ANY_READ_BIT = 0o444
_ANY_WRITE_BIT = 0o222
_NO_LINKS_HERE = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES})

Fingerprint = tuple[int, int, int, int]
"""Device, inode, modification time in ns and size. While they are unchanged, the content is taken to be unchanged."""


class Staging:
    """A private folder in which an artifact is built.

    Files are added by link or copy and hashed once; the manifest is written last.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mode = folder.stat().st_mode & _ANY_READ_BIT  # whoever may enter the folder reads; nobody writes
        self.fingerprints: dict[Fingerprint, str] = {}
        self._files: list[ManifestFile] = []

    def add_file(self, source: Path, path: str, *, consume: bool) -> None:
        """Link ``source`` if the caller gives it up (``consume``) or it is read-only; otherwise copy it."""
        target = self._place(path)
        if consume or not source.stat().st_mode & _ANY_WRITE_BIT:
            with contextlib.suppress(_CannotLink):
                _link(source, target)
                self._take(_hash(target, path, self._mode))
                return
        self._take(_write(target, chunks(source), path, self._mode))

    def add_lines(self, lines: Iterable[str], path: str) -> None:
        """Stream ``lines``, given without their line ends, into the file ``path``."""
        self._take(_write(self._place(path), _encoded(lines, path), path, self._mode))

    def add_expected(self, chunks: Iterable[bytes], expected: ManifestFile, where: str) -> None:
        """Add a download. Raises ArtifactError, naming its source ``where``, unless it matches ``expected``."""
        arrived = _write(self._place(expected.path), chunks, expected.path, self._mode)
        if arrived != expected:
            raise damaged(
                where,
                f"its content is not what was published ({arrived.size_bytes:,} bytes where "
                f"{expected.size_bytes:,} were published)",
            )
        self._take(arrived)

    def seal(self, kind: Kind, provenance: Mapping[str, Any], requires: Iterable[str] = ()) -> Manifest:
        manifest = Manifest.of(self._files, kind, provenance, requires)
        self.seal_as(manifest)
        return manifest

    def seal_as(self, manifest: Manifest) -> None:
        for folder in {(self.folder / file.path).parent for file in manifest.files}:
            sync_folder(folder)
        text = manifest.model_dump_json(indent=1) + "\n"
        _write(self.folder / MANIFEST_NAME, [text.encode()], MANIFEST_NAME, self._mode)
        sync_folder(self.folder)

    def _take(self, file: ManifestFile) -> None:
        self.fingerprints[fingerprint((self.folder / file.path).stat())] = file.sha256
        self._files.append(file)

    def _place(self, path: str) -> Path:
        if path == MANIFEST_NAME:
            raise ArtifactError(
                f"{MANIFEST_NAME} is reserved by the store; publish a folder without that file "
                "(this one may be an artifact already)."
            )
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


@contextmanager
def staging(root: Path) -> Iterator[Staging]:
    """A staging folder under ``root``; whatever is left at the end is removed.

    Its lock shows a sweep that the publisher is alive, even if publishing takes long.
    """
    folder = root / uuid.uuid4().hex
    private_folder(folder)
    with FileLock.acquire(folder):
        try:
            yield Staging(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def abandoned(root: Path, older_than_s: float) -> Iterator[Path]:
    """Staging folders of dead publishers, untouched for ``older_than_s``."""
    for folder in root.iterdir() if root.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime >= older_than_s and not is_locked(folder):
                yield folder


def fingerprint(stat: os.stat_result) -> Fingerprint:
    return (stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size)


def damaged(where: Path | str, what: str) -> ArtifactError:
    return ArtifactError(
        f"{where} is damaged: {what}. Publish the artifact again from its source, or delete it and restore a backup."
    )


def absent(artifact_id: str, where: Path | str) -> ArtifactError:
    return ArtifactError(
        f"There is no artifact {artifact_id}: {where} is absent. It was deleted by retention, never finished, or is "
        "in another store; check the setting artifacts.url."
    )


class _CannotLink(Exception):
    """The two paths are on different file systems, or this one has no hard links."""


def _link(source: Path, target: Path) -> None:
    if source.is_symlink():
        raise _CannotLink
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in _NO_LINKS_HERE:
            raise _CannotLink from error
        raise


def _hash(target: Path, path: str, mode: int) -> ManifestFile:
    with open(target, "rb") as file:
        try_chmod(file.fileno(), mode)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
        return ManifestFile(path=path, sha256=sha256, size_bytes=file.tell())


def _write(target: Path, chunks: Iterable[bytes], path: str, mode: int) -> ManifestFile:
    digest, size_bytes = hashlib.sha256(), 0
    with open(target, "xb") as file:
        for chunk in chunks:
            digest.update(chunk)
            size_bytes += len(chunk)
            file.write(chunk)
        file.flush()
        try_chmod(file.fileno(), mode)
        os.fsync(file.fileno())
    return ManifestFile(path=path, sha256=digest.hexdigest(), size_bytes=size_bytes)


def chunks(source: Path) -> Iterator[bytes]:
    """The bytes of a file, a megabyte at a time. Raises ArtifactError if it is not a regular file."""
    with open_regular(source, ArtifactError) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _encoded(lines: Iterable[str], path: str) -> Iterator[bytes]:
    for number, line in enumerate(lines, start=1):
        if "\n" in line:
            raise ArtifactError(f"{path}:{number}: the line contains a line break; encode it as JSON first.")
        yield line.encode() + b"\n"


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

    def published_at(self, artifact_id: str) -> float:
        path = self.path(artifact_id) / MANIFEST_NAME
        try:
            return path.stat().st_mtime
        except FileNotFoundError as error:
            raise absent(artifact_id, path) from error

    def verified(self, artifact_id: str) -> Manifest:
        """The manifest, after every file was verified against it; unchanged files are hashed once per process."""
        manifest, folder = self.manifest(artifact_id), self.path(artifact_id)
        expected = {file.path: file for file in manifest.files}
        if unlisted := sorted(_file_paths(folder) - expected.keys() - {MANIFEST_NAME}):
            raise damaged(folder / unlisted[0], "it is not in the manifest")
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
        """Build an artifact with ``fill``, then rename it to its id. Content that exists already is kept."""
        with disk_errors(self.root, needed_bytes), staging(self.root / _STAGING) as draft:
            manifest = fill(draft)
            self._verified.update(draft.fingerprints)
            if self.intact(manifest.id) is not None and self._renew(manifest.id):
                return self.manifest(manifest.id)
            self._settle(draft.folder, manifest.id)
            return self.manifest(manifest.id)

    def read_into(self, draft: Staging, manifest: Manifest) -> Manifest:
        """Copy every file into ``draft``, verified against the manifest."""
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
        """Whether the artifact exists with every file at its full size. Contents are not read."""
        folder = self.path(manifest.id)
        sizes = {path: (folder / path).lstat().st_size for path in _file_paths(folder)}
        return self.exists(manifest.id) and all(sizes.get(file.path) == file.size_bytes for file in manifest.files)

    def delete(self, artifact_id: str) -> None:
        """Rename it out of the way, then remove it. It may already be absent."""
        doomed = self._doomed()
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path(artifact_id), doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def sweep_garbage(self, older_than_s: float) -> int:
        """Remove the unfinished artifacts of dead publishers; returns the bytes freed."""
        garbage = [*abandoned(self.root / _STAGING, older_than_s), *self._without_manifest(older_than_s)]
        freed_bytes = sum(_size_bytes(folder) for folder in garbage)
        for folder in garbage:
            shutil.rmtree(folder, ignore_errors=True)
        return freed_bytes

    def touch(self, artifact_id: str) -> None:
        """Record the use of an artifact, for ``trim``."""
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

    def _renew(self, artifact_id: str) -> bool:
        """Note that it was published once more, so that no sweep takes it for one that nobody wants."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path(artifact_id) / MANIFEST_NAME)
            return True
        return False

    def _without_manifest(self, older_than_s: float) -> Iterator[Path]:
        for folder in self.root.iterdir() if self.root.is_dir() else ():
            is_artifact = folder.name == _STAGING or (folder / MANIFEST_NAME).exists()
            if folder.is_dir() and not is_artifact and time.time() - folder.stat().st_mtime >= older_than_s:
                yield folder

    def _settle(self, draft: Path, artifact_id: str) -> None:
        """Rename ``draft`` to its id. A damaged artifact there is replaced, an intact one kept."""
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

    def _doomed(self) -> Path:
        parent = self.root / _STAGING
        parent.mkdir(parents=True, exist_ok=True)
        return parent / uuid.uuid4().hex

    def _verify(self, path: Path, size_bytes: int, sha256: str) -> None:
        try:
            with disk_errors(self.root), open_regular(path, ArtifactError) as file:
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

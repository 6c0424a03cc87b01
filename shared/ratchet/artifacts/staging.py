"""A private folder in which an artifact is put together before it gets its name."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ratchet.artifacts.manifest import MANIFEST_NAME, Kind, Manifest, ManifestFile
from ratchet.disk import sync_folder
from ratchet.errors import ArtifactError
from ratchet.file_lock import FileLock, is_locked
from ratchet.files import open_regular

_CHUNK_BYTES = 1 << 20
_READ_ONLY = 0o444
_ANY_WRITE_BIT = 0o222
_NO_LINKS_HERE = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES})

Fingerprint = tuple[int, int, int, int]
"""Device, inode, modification time in ns, size: while they stay, so does the content."""


class Staging:
    """Files come in by link or copy and are hashed on the way, once; the manifest is written last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fingerprints: dict[Fingerprint, str] = {}
        self._files: list[ManifestFile] = []

    def add_file(self, source: Path, path: str, *, consume: bool) -> None:
        """Link ``source`` if it is given away (``consume``) or read-only; copy it otherwise."""
        target = self._place(path)
        if consume or not source.stat().st_mode & _ANY_WRITE_BIT:
            with contextlib.suppress(_CannotLink):
                _link(source, target)
                self._take(_hash(target, path))
                return
        self._take(_write(target, chunks(source), path))

    def add_lines(self, lines: Iterable[str], path: str) -> None:
        """Stream ``lines``, given without their line ends, into the file ``path``."""
        self._take(_write(self._place(path), _encoded(lines, path), path))

    def add_expected(self, chunks: Iterable[bytes], expected: ManifestFile, where: str) -> None:
        """Take in a download; what is not ``expected`` is refused, naming ``where`` it came from."""
        arrived = _write(self._place(expected.path), chunks, expected.path)
        if arrived != expected:
            raise damaged(
                where,
                f"its content is not what was published ({arrived.size_bytes:,} bytes where "
                f"{expected.size_bytes:,} were published)",
            )
        self._take(arrived)

    def seal(self, kind: Kind, provenance: Mapping[str, Any]) -> Manifest:
        manifest = Manifest.of(self._files, kind, provenance)
        self.seal_as(manifest)
        return manifest

    def seal_as(self, manifest: Manifest) -> None:
        for folder in {(self.folder / file.path).parent for file in manifest.files}:
            sync_folder(folder)
        text = manifest.model_dump_json(indent=1) + "\n"
        _write(self.folder / MANIFEST_NAME, [text.encode()], MANIFEST_NAME)
        sync_folder(self.folder)

    def _take(self, file: ManifestFile) -> None:
        self.fingerprints[fingerprint((self.folder / file.path).stat())] = file.sha256
        self._files.append(file)

    def _place(self, path: str) -> Path:
        if path == MANIFEST_NAME:
            raise ArtifactError(
                f"{MANIFEST_NAME} is the store's own name; publish a folder without that file "
                "(this one may be an artifact already)."
            )
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


@contextmanager
def staging(root: Path) -> Iterator[Staging]:
    """A staging folder under ``root``; what is still there at the end is removed.

    Its lock tells a sweep that the publisher lives, however long publishing takes.
    """
    folder = root / uuid.uuid4().hex
    folder.mkdir(parents=True)
    with FileLock.acquire(folder):
        try:
            yield Staging(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def abandoned(root: Path, older_than_s: float) -> Iterator[Path]:
    """Staging folders whose publisher is dead and that have lain for ``older_than_s``."""
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
        f"There is no artifact {artifact_id}: {where} is absent. It was deleted by retention, never finished, or lies "
        "in another store; check the setting artifacts.url."
    )


class _CannotLink(Exception):
    """The two paths lie on different file systems, or this one knows no hard links."""


def _link(source: Path, target: Path) -> None:
    if source.is_symlink():
        raise _CannotLink
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in _NO_LINKS_HERE:
            raise _CannotLink from error
        raise


def _hash(target: Path, path: str) -> ManifestFile:
    with open(target, "rb") as file:
        os.fchmod(file.fileno(), _READ_ONLY)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
        return ManifestFile(path=path, sha256=sha256, size_bytes=file.tell())


def _write(target: Path, chunks: Iterable[bytes], path: str) -> ManifestFile:
    digest, size_bytes = hashlib.sha256(), 0
    with open(target, "xb") as file:
        for chunk in chunks:
            digest.update(chunk)
            size_bytes += len(chunk)
            file.write(chunk)
        file.flush()
        os.fchmod(file.fileno(), _READ_ONLY)
        os.fsync(file.fileno())
    return ManifestFile(path=path, sha256=digest.hexdigest(), size_bytes=size_bytes)


def chunks(source: Path) -> Iterator[bytes]:
    """The bytes of a file, a megabyte at a time. Raises ArtifactError for what is no file."""
    with open_regular(source, ArtifactError) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _encoded(lines: Iterable[str], path: str) -> Iterator[bytes]:
    for number, line in enumerate(lines, start=1):
        if "\n" in line:
            raise ArtifactError(f"{path}:{number}: the line holds a line break; encode it as JSON first.")
        yield line.encode() + b"\n"

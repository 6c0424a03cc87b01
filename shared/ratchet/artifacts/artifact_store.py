"""The artifact store: publish, fetch and delete immutable files by the digest of their content.

A store is a local folder, or a remote one behind a local cache of verified copies.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ratchet.artifacts.local_artifacts import ArtifactFolder, Staging
from ratchet.artifacts.manifest import Kind, Manifest
from ratchet.artifacts.remote_artifacts import RemoteArtifacts
from ratchet.disk import disk_errors
from ratchet.errors import ArtifactError, SettingsError
from ratchet.lines import read_lines
from ratchet.settings import Settings

DEFAULT_CACHE = Path("~/.cache/ratchet/artifacts")
TRIM_EVERY_S = 600.0


@dataclass(frozen=True)
class Artifact:
    """A published artifact; ``path`` is its read-only folder on this machine."""

    manifest: Manifest
    path: Path

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def kind(self) -> Kind:
        return self.manifest.kind

    @property
    def size_bytes(self) -> int:
        return self.manifest.size_bytes


class ArtifactStore:
    """Artifacts at an fsspec ``url``. A remote one keeps verified copies in the local folder ``cache``.

    ``cache_bytes`` limits these copies; without it they are kept. ``options`` go to the file system of the URL.
    """

    def __init__(
        self,
        url: str,
        cache: Path | None = None,
        *,
        cache_bytes: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.url, self._cache_bytes = url, cache_bytes
        self._trimmed_at = float("-inf")
        try:
            filesystem, root = fsspec.url_to_fs(url, use_listings_cache=False, **(options or {}))
        except (ImportError, ValueError) as error:
            raise SettingsError(
                f"artifacts.url {url!r} cannot be opened: {error}. Use a folder (file:///…) or "
                "s3://bucket/…, and install the fsspec package of that protocol."
            ) from error
        self._remote: RemoteArtifacts | None = None
        if isinstance(filesystem, LocalFileSystem):
            self._folder = ArtifactFolder(Path(root))
        else:
            self._folder = ArtifactFolder((cache or DEFAULT_CACHE).expanduser())
            self._remote = RemoteArtifacts(filesystem, root, url)

    @property
    def disk(self) -> Path | None:
        """The folder of a local store; None for a remote one."""
        return self._folder.root if self._remote is None else None

    def publish(
        self,
        source: Path,
        kind: Kind,
        provenance: Mapping[str, Any],
        *,
        consume: bool = False,
        requires: Iterable[str] = (),
    ) -> Artifact:
        """Publish a file, or a folder with everything below it. The same content is always the same artifact.

        ``requires`` are the ids of published artifacts that the content refers to: they are fetched with this one.
        With ``consume`` the caller gives ``source`` up: it is hard-linked where the disk allows, and removed at the
        end. Otherwise only read-only files are linked; files that may still be written to are copied.
        """
        files = _files_of(source)

        def fill(draft: Staging) -> Manifest:
            for path, file in files.items():
                draft.add_file(file, path, consume=consume)
            return draft.seal(kind, provenance, requires)

        artifact = self._put(fill, needed_bytes=sum(file.stat().st_size for file in files.values()))
        if consume:
            _remove(source)
        return artifact

    def publish_lines(
        self, lines: Iterable[str], kind: Kind, provenance: Mapping[str, Any], *, name: str = "rows.jsonl"
    ) -> Artifact:
        """Publish ``lines``, streamed and each without its line end, as the one file ``name``."""

        def fill(draft: Staging) -> Manifest:
            draft.add_lines(lines, name)
            return draft.seal(kind, provenance)

        return self._put(fill)

    def fetch(self, artifact_id: str) -> Path:
        """The artifact's verified folder on this machine. Models map these files into memory, so never write there.

        What the artifact requires is then beside it, under its own id, and verified too.
        """
        remote = self._remote
        with _about(artifact_id):
            if remote is not None and self._folder.intact(artifact_id) is None:
                manifest = remote.manifest(artifact_id)
                self._folder.put(lambda draft: remote.read_into(draft, manifest), manifest.size_bytes)
                self._trim_at_intervals()
            manifest = self._folder.verified(artifact_id)
            if remote is not None:
                self._folder.touch(artifact_id)
        for required in manifest.requires:
            self.fetch(required)
        return self._folder.path(artifact_id)

    def open_lines(self, artifact_id: str, name: str = "rows.jsonl") -> Iterator[str]:
        """The lines of one file, without their line ends; the artifact is verified before the first."""
        self.manifest(artifact_id).file(name)
        yield from read_lines(self.fetch(artifact_id) / name)

    def manifest(self, artifact_id: str) -> Manifest:
        with _about(artifact_id):
            if self._remote is None or self._folder.exists(artifact_id):
                return self._folder.manifest(artifact_id)
            return self._remote.manifest(artifact_id)

    def size_bytes(self, artifact_id: str) -> int:
        return self.manifest(artifact_id).size_bytes

    def exists(self, artifact_id: str) -> bool:
        return (self._remote or self._folder).exists(artifact_id)

    def ids(self) -> Iterator[str]:
        return (self._remote or self._folder).ids()

    def published_at(self, artifact_id: str) -> float:
        """When it was last published, new or once more, in Unix seconds. Raises ArtifactError where it is absent."""
        with _about(artifact_id):
            return (self._remote or self._folder).published_at(artifact_id)

    def delete(self, artifact_id: str) -> None:
        """Remove it from the store and this machine; it may already be absent. Open and mapped files stay readable."""
        if self._remote is not None:
            self._remote.delete(artifact_id)
        self._folder.delete(artifact_id)

    def copy_to(self, folder: ArtifactFolder, artifact_id: str) -> Manifest:
        """Copy an artifact into another folder without the cache, and verify it; an intact one there is kept."""
        source = self._remote or self._folder
        manifest = source.manifest(artifact_id)
        return folder.put(lambda draft: source.read_into(draft, manifest), manifest.size_bytes)

    def take_from(self, folder: ArtifactFolder, artifact_id: str) -> Manifest:
        """Copy an artifact from another folder after verifying it; a complete one here is kept."""
        manifest = folder.verified(artifact_id)
        if self._remote is not None:
            self._remote.upload(manifest, folder.path(artifact_id))
        elif self._folder.intact(artifact_id) is None:
            self._folder.put(lambda draft: folder.read_into(draft, manifest), manifest.size_bytes)
        return manifest

    def sweep_garbage(self, older_than_s: float) -> int:
        """Remove unfinished artifacts of publishers that died ``older_than_s`` ago; returns the bytes freed."""
        freed_bytes = self._folder.sweep_garbage(older_than_s)
        return freed_bytes + (self._remote.sweep_garbage(older_than_s) if self._remote is not None else 0)

    def trim_cache(self, most_bytes: int, unused_for_s: float = 3600.0) -> int:
        """Drop local copies of a remote store, those unused longest first, down to ``most_bytes``.

        None is dropped that was fetched within ``unused_for_s``. Returns the bytes freed; a local store has
        no copies, so nothing is dropped there.
        """
        return 0 if self._remote is None else self._folder.trim(most_bytes, unused_for_s)

    def _trim_at_intervals(self) -> None:
        """Trim only at intervals, since scanning a large cache takes a while."""
        if self._cache_bytes is not None and time.monotonic() - self._trimmed_at >= TRIM_EVERY_S:
            self._trimmed_at = time.monotonic()
            self.trim_cache(self._cache_bytes)

    def _put(self, fill: Callable[[Staging], Manifest], needed_bytes: int | None = None) -> Artifact:
        manifest = self._folder.put(fill, needed_bytes)
        path = self._folder.path(manifest.id)
        if self._remote is not None:
            self._remote.upload(manifest, path)
            self._trim_at_intervals()
        return Artifact(manifest, path)


@contextmanager
def _about(artifact_id: str) -> Iterator[None]:
    """Set the artifact on errors raised in the block."""
    try:
        yield
    except ArtifactError as error:
        error.artifact = artifact_id
        raise


def _files_of(source: Path) -> dict[str, Path]:
    if source.is_file():
        return {source.name: source}
    files = {path.relative_to(source).as_posix(): path for path in sorted(source.rglob("*")) if path.is_file()}
    if not files:
        raise ArtifactError(f"{source} has no file to publish; check the path, and that it was written.")
    return files


def _remove(source: Path) -> None:
    with disk_errors(source.parent):
        if source.is_dir():
            shutil.rmtree(source)
        else:
            source.unlink()


GB = 1_000_000_000


def artifact_store(settings: Settings) -> ArtifactStore:
    """The store that the settings name, with this machine's cache if it is remote.

    Raises SettingsError for a URL that cannot be opened.
    """
    return ArtifactStore(
        settings.artifact_url,
        settings.artifact_cache,
        cache_bytes=int(settings.artifacts.cache_gb * GB),
        options=settings.artifacts.options if settings.artifacts.url else None,
    )

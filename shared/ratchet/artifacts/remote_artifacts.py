"""Artifacts in an object store, on any fsspec file system; every byte passes through the local cache.

Nothing is renamed there: an artifact exists once its manifest does, which is written last. Failures of the store are
distinguished from damaged artifacts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ratchet.artifacts.local_artifacts import Staging, absent, damaged
from ratchet.artifacts.manifest import MANIFEST_NAME, Manifest, checked_id
from ratchet.errors import RatchetError, TransientError

_CHUNK_BYTES = 1 << 20

_BUGS = (AttributeError, NameError, TypeError, AssertionError, NotImplementedError)
"""Errors that no unreachable store raises. As TransientErrors they would be retried forever."""


@contextmanager
def remote_errors(url: str) -> Iterator[None]:
    """Turn any error of a remote store into a TransientError, except absent files and programming errors.

    The libraries behind fsspec have error trees of their own, so there is no narrower base to catch.
    """
    try:
        yield
    except (RatchetError, FileNotFoundError, *_BUGS):
        raise
    except Exception as error:
        raise TransientError(
            f"The artifact store {url} cannot be reached or refuses access: {type(error).__name__}: {error}. "
            "Check its address and credentials; the work is retried automatically."
        ) from error


class RemoteArtifacts:
    """Artifacts below ``<url>/<id>/``."""

    def __init__(self, filesystem: Any, root: str, url: str) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")
        self.url = url

    def exists(self, artifact_id: str) -> bool:
        with remote_errors(self.url):
            return bool(self._fs.exists(self._key(artifact_id, MANIFEST_NAME)))

    def ids(self) -> Iterator[str]:
        with remote_errors(self.url):
            folders = self._folders()
        for artifact_id in folders:
            if self.exists(artifact_id):
                yield artifact_id

    def manifest(self, artifact_id: str) -> Manifest:
        key = self._key(artifact_id, MANIFEST_NAME)
        try:
            with remote_errors(self.url):
                manifest = Manifest.parse(self._fs.cat_file(key), key)
        except FileNotFoundError as error:
            raise absent(artifact_id, key) from error
        if manifest.id != artifact_id:
            raise damaged(key, f"it describes {manifest.id}")
        return manifest

    def published_at(self, artifact_id: str) -> float:
        key = self._key(artifact_id, MANIFEST_NAME)
        with remote_errors(self.url):
            entry = self._listed(artifact_id).get(key)
            if entry is None:
                raise absent(artifact_id, key)
            return self._modified_at(key, entry)

    def upload(self, manifest: Manifest, folder: Path) -> None:
        """Upload the files of ``folder``, then the manifest. Of an artifact that is complete already only the manifest
        is written, so that no sweep takes it for one that nobody wants."""
        with remote_errors(self.url):
            is_there = self._fs.exists(self._key(manifest.id, MANIFEST_NAME)) and self._has_all(manifest)
            for file in () if is_there else manifest.files:
                self._fs.put_file(str(folder / file.path), self._key(manifest.id, file.path))
            self._fs.pipe_file(self._key(manifest.id, MANIFEST_NAME), (folder / MANIFEST_NAME).read_bytes())

    def read_into(self, draft: Staging, manifest: Manifest) -> Manifest:
        """Download every file into ``draft``, verified against the manifest."""
        for file in manifest.files:
            key = self._key(manifest.id, file.path)
            try:
                draft.add_expected(self._chunks(key), file, key)
            except FileNotFoundError as error:
                raise damaged(key, "it is missing") from error
        draft.seal_as(manifest)
        return manifest

    def delete(self, artifact_id: str) -> None:
        """The manifest is deleted first, so that an incomplete artifact is never read."""
        with remote_errors(self.url):
            first = self._key(artifact_id, MANIFEST_NAME)
            self._remove(artifact_id, sorted(self._listed(artifact_id), key=lambda key: key != first))

    def sweep_garbage(self, older_than_s: float) -> int:
        """Remove folders without a manifest whose newest file is older; returns the bytes freed."""
        freed_bytes = 0
        with remote_errors(self.url):
            for artifact_id in self._folders():
                keys = self._listed(artifact_id)
                if self._key(artifact_id, MANIFEST_NAME) in keys or not keys:
                    continue
                if time.time() - max(self._modified_at(key, entry) for key, entry in keys.items()) >= older_than_s:
                    freed_bytes += sum(int(entry["size"]) for entry in keys.values())
                    self._remove(artifact_id, keys)
        return freed_bytes

    def _remove(self, artifact_id: str, keys: Iterable[str]) -> None:
        """One request a file: servers that only look like S3 may refuse the one for many, because of its checksum."""
        for key in keys:
            with suppress(FileNotFoundError):
                self._fs.rm_file(key)
        folder = self._key(artifact_id)
        self._fs.invalidate_cache(folder)
        if self._fs.exists(folder):  # on a file system with folders
            self._fs.rm(folder, recursive=True)

    def _key(self, artifact_id: str, path: str = "") -> str:
        return "/".join(part for part in (self._root, checked_id(artifact_id), path) if part)

    def _folders(self) -> list[str]:
        if not self._fs.exists(self._root):
            return []
        names = {str(name).rstrip("/").rsplit("/", 1)[-1] for name in self._fs.ls(self._root, detail=False)}
        return sorted(name for name in names if len(name) == 64)

    def _listed(self, artifact_id: str) -> dict[str, dict[str, Any]]:
        """The files of a folder from a fresh listing, since a cached one may lack sizes and times."""
        folder = self._key(artifact_id)
        self._fs.invalidate_cache(folder)
        found = self._fs.find(folder, detail=True)
        return {str(key): entry for key, entry in found.items() if entry.get("type") != "directory"}

    def _has_all(self, manifest: Manifest) -> bool:
        sizes = {str(key): entry["size"] for key, entry in self._fs.find(self._key(manifest.id), detail=True).items()}
        return all(sizes.get(self._key(manifest.id, file.path)) == file.size_bytes for file in manifest.files)

    def _modified_at(self, key: str, entry: Mapping[str, Any]) -> float:
        """The time from the listing if it has one: some stores, asked for a file, take it for a folder."""
        moment = entry.get("LastModified") or self._fs.modified(key)
        return float(moment.timestamp())

    def _chunks(self, key: str) -> Iterator[bytes]:
        with remote_errors(self.url), self._fs.open(key, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

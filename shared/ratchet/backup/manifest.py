"""What a backup says of itself. It is written last: a folder without it holds no finished backup."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ratchet.artifacts.folder import ArtifactFolder
from ratchet.disk import write_atomically
from ratchet.errors import ArtifactError, PreconditionFailed
from ratchet.files import open_regular

MANIFEST = "backup.json"
ARTIFACTS = "artifacts"
_CHUNK_BYTES = 1 << 20


class LedgerCopy(BaseModel):
    """The ledger as an SQLite file, whatever it was copied from; ``rows`` counts them by table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=r"^ledger-[0-9a-f]{16}\.db$")
    sha256: str
    size_bytes: int
    revision: str | None
    rows: Mapping[str, int]

    @classmethod
    def of(cls, path: Path, revision: str | None, rows: Mapping[str, int]) -> LedgerCopy:
        """``path`` gets the name under which its content is kept."""
        with open(path, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        name = f"ledger-{sha256[:16]}.db"
        size_bytes = path.replace(path.parent / name).stat().st_size
        return cls(file=name, sha256=sha256, size_bytes=size_bytes, revision=revision, rows=rows)

    def verified(self, folder: Path) -> Path:
        """Where the file is. Raises ArtifactError where it is absent or not what was written."""
        path = folder / self.file
        if not os.path.lexists(path):
            raise ArtifactError(f"{path} is missing: this backup has lost its ledger; take another one.")
        with open_regular(path, ArtifactError) as file:
            self._require_same(hashlib.file_digest(file, "sha256").hexdigest(), path)
        return path

    def copy_to(self, path: Path, target: Path) -> None:
        """Copy the verified file, and compare it once more on the way."""
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
    """``version`` is Ratchet's. ``artifacts`` has the bytes of each by its id, which is the digest of its files."""

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
        write_atomically(folder / MANIFEST, self.model_dump_json(indent=1) + "\n", durable=True)

    @classmethod
    def read(cls, folder: Path) -> BackupManifest:
        """Raises PreconditionFailed for a folder without a finished backup, ArtifactError for a manifest that cannot be read."""
        path = folder / MANIFEST
        if not os.path.lexists(path):
            raise PreconditionFailed(f"{folder} holds no finished backup: there is no {MANIFEST} in it.")
        with open_regular(path, ArtifactError) as file:
            text = file.read()
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "it"
            raise ArtifactError(
                f"{path} cannot be read ({where}: {first['msg']}): it is damaged, or of a newer version of Ratchet; "
                "restore with that version, or take another backup."
            ) from error


def artifacts_of(folder: Path) -> ArtifactFolder:
    """The artifacts that lie in a backup."""
    return ArtifactFolder(folder / ARTIFACTS)

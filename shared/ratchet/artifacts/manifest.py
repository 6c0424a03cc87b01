"""The manifest of an artifact: its files, their digests, and their provenance.

An artifact's id is the digest of its files alone, so equal content is one artifact.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from ratchet.errors import ArtifactError
from ratchet.removed import is_removed

MANIFEST_NAME = "manifest.json"

Kind = Literal["checkpoint", "state", "batch", "record", "suite", "report"]
KINDS: frozenset[str] = frozenset(get_args(Kind))

_ID = re.compile(r"[0-9a-f]{64}")
_Sha256 = Field(pattern=r"^[0-9a-f]{64}$")


class ManifestFile(BaseModel):
    """One file; ``path`` is relative to the artifact, with forward slashes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str = _Sha256
    size_bytes: int = Field(ge=0)

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or str(PurePosixPath(path)) != path:
            raise ValueError(f"{path!r} does not lie inside the artifact")
        return path


class Manifest(BaseModel):
    """The file of an artifact that is written last; without it the artifact does not exist.

    ``requires`` are the ids of artifacts without which this one is of no use, as the base weights of adapters.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    kind: Kind
    id: str = _Sha256
    files: tuple[ManifestFile, ...] = Field(min_length=1)
    provenance: Mapping[str, JsonValue]
    requires: tuple[str, ...] = ()
    created_at: float

    @model_validator(mode="after")
    def _id_is_of_these_files(self) -> Self:
        if self.id != content_id(self.files):
            raise ValueError("the id is not the digest of the listed files")
        return self

    @classmethod
    def of(
        cls, files: Iterable[ManifestFile], kind: Kind, provenance: Mapping[str, Any], requires: Iterable[str] = ()
    ) -> Manifest:
        listed = tuple(sorted(files, key=lambda file: file.path))
        return cls(
            kind=kind,
            id=content_id(listed),
            files=listed,
            provenance=dict(provenance),
            requires=tuple(checked_id(artifact_id) for artifact_id in requires),
            created_at=time.time(),
        )

    @classmethod
    def parse(cls, text: str | bytes, where: str) -> Manifest:
        """``where`` is the manifest's own address, for the error."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "manifest"
            raise ArtifactError(
                f"{where} is damaged: {field}: {first['msg']}. "
                "Delete this artifact and publish it again, or restore it from a backup."
            ) from error

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def file(self, path: str) -> ManifestFile:
        for file in self.files:
            if file.path == path:
                return file
        known = ", ".join(file.path for file in self.files)
        raise ArtifactError(f"{self.kind} {self.id} has no file {path}; it has {known}.")


def content_id(files: Iterable[ManifestFile]) -> str:
    """sha256 over the lines ``path NUL sha256 NUL size`` in the order of the paths."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        digest.update(f"{file.path}\0{file.sha256}\0{file.size_bytes}\n".encode())
    return digest.hexdigest()


def weights_digest(manifest: Manifest) -> str:
    """Identity of a model's weights: sha256 over the sorted lines ``path sha256`` of its safetensors.

    Only files of the top folder count; tokenizer, config and optimizer do not change it. Raises ArtifactError where
    there are none, and for adapters, whose identity includes that of the weights under them.
    """
    weights = [file for file in manifest.files if re.fullmatch(r"[^/]+\.safetensors", file.path)]
    if not weights or manifest.requires:
        raise ArtifactError(
            f"{manifest.kind} {manifest.id} holds no whole weights (*.safetensors in its top folder); "
            "publish the folder that save_pretrained wrote."
        )
    lines = sorted(f"{file.path} {file.sha256}\n" for file in weights)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def checked_id(artifact_id: str) -> str:
    if is_removed(artifact_id):
        raise ArtifactError(f"this was {artifact_id}; see [retention] in the settings.")
    if not _ID.fullmatch(artifact_id):
        raise ArtifactError(f"{artifact_id!r} is not an artifact id; an id is 64 hexadecimal digits.")
    return artifact_id

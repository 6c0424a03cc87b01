"""A checkpoint of adapters (LoRA) on disk, and the frozen base weights that it needs.

Its folder has the adapters in peft's format, the tokenizer, the configuration, and ``base.json``, which names the base.
In an artifact store the base is the folder beside it. A base may itself be a checkpoint of adapters, where training
began new ones on it. Nothing here imports torch: model_loading merges adapters into their base.
"""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ratchet.errors import BrokenCheckpoint
from ratchet.inference.model_folder import BASE, check_folder, read_json, weights_digest

ADAPTER_CONFIG = "adapter_config.json"
_ARTIFACT_ID = re.compile(r"[0-9a-f]{64}")


class BaseReference(BaseModel):
    """Content of ``base.json``; ``weights`` and ``scale`` are part of the checkpoint's own weights digest.

    ``artifact`` is the id of the base's artifact, or None where ``path`` names a folder outside a store. ``mode`` is
    the training mode of the adapters, and ``scale`` their factor, alpha / rank.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifact: str | None
    path: str | None
    weights: str
    mode: str
    scale: float

    @classmethod
    def to(cls, base: Path, weights: str, mode: str, scale: float) -> BaseReference:
        """A reference to the folder ``base``, whose weights have this digest."""
        is_artifact = _ARTIFACT_ID.fullmatch(base.name) is not None and (base / "manifest.json").is_file()
        artifact, path = (base.name, None) if is_artifact else (None, str(base.resolve()))
        return cls(artifact=artifact, path=path, weights=weights, mode=mode, scale=scale)

    @classmethod
    def read(cls, folder: Path) -> BaseReference:
        """Raises BrokenCheckpoint for a file that is missing or malformed."""
        try:
            return cls.model_validate(read_json(folder / BASE))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise BrokenCheckpoint(f"{folder / BASE}: {where}: {first['msg']}.") from error

    def write(self, folder: Path) -> None:
        (folder / BASE).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def folder(self, checkpoint: Path) -> Path:
        """The folder of the base, for the adapters in the folder ``checkpoint``."""
        return checkpoint.parent / self.artifact if self.artifact is not None else Path(str(self.path))


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds adapters and not whole weights."""
    return (folder / BASE).is_file()


def checked_base(folder: Path) -> Path:
    """The folder of the base of these adapters, complete and with the weights that they were trained on.

    Raises BrokenCheckpoint, naming the file, or both digests if they differ.
    """
    reference = BaseReference.read(folder)
    base = reference.folder(folder)
    if not base.is_dir():
        raise BrokenCheckpoint(f"{base}, with the base weights of the adapters in {folder}, is missing.")
    check_folder(base)
    found = weights_digest(base)
    if found != reference.weights:
        raise BrokenCheckpoint(
            f"{base} holds weights {found[:12]}…, but the adapters in {folder} belong to {reference.weights[:12]}…."
        )
    return base


def whole_base(folder: Path) -> Path:
    """The folder with whole weights at the end of the chain of bases; ``folder`` itself where it has no adapters."""
    while is_adapter(folder):
        folder = BaseReference.read(folder).folder(folder)
    return folder


def base_name(folder: Path) -> str:
    """The base model's name, as peft and the hub read it from the adapters' configuration."""
    return str(read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path"))

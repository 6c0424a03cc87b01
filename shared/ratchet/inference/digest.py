"""The digest that names a checkpoint's weights, wherever the folder lies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from ratchet.errors import BrokenCheckpoint
from ratchet.files import open_regular


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes. Raises BrokenCheckpoint for what is no file."""
    with open_regular(path, BrokenCheckpoint) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_sums(sums: Mapping[str, str]) -> str:
    """The weights digest from each file's sha256, by relative path; only ``*.safetensors`` files count."""
    weights = {name: sha for name, sha in sums.items() if name.endswith(".safetensors") and "/" not in name}
    lines = "".join(f"{name} {weights[name]}\n" for name in sorted(weights))
    return hashlib.sha256(lines.encode()).hexdigest()


def weights_digest(folder: Path) -> str:
    """Hex sha256 over the sorted lines ``<name> <sha256>\\n`` of the folder's ``*.safetensors`` files.

    Raises BrokenCheckpoint where there is none. Sub-folders (optimizer states) do not count.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BrokenCheckpoint(f"{folder} holds no *.safetensors file; only safetensors weights are read.")
    return digest_of_sums({file.name: file_sha256(file) for file in files})

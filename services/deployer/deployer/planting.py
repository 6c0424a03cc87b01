"""A bad checkpoint for a rollback drill: a copy of a model's folder in which one weight matrix is damaged.

The rows of its token embedding are shifted by one, so that each token has the vector of its neighbour. The model loads
and answers, but wrongly. Files are changed as bytes, so that no torch is needed. It does not know the ledger.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.artifacts.manifest import MANIFEST_NAME, ManifestFile, content_id
from ratchet.errors import BrokenCheckpoint
from ratchet.inference.adapter_folder import whole_base
from ratchet.inference.model_folder import (
    CONFIG,
    digest_of_sums,
    file_sha256,
    read_header,
    read_json,
    weight_files,
)

PREFIX = "drill-"
"""What the planted checkpoints' ids on the server begin with. No checkpoint of the ledger has such an id."""

CHUNK_BYTES = 1 << 20
ANY_WRITE_BIT = 0o222


@dataclass(frozen=True)
class Planted:
    """A bad checkpoint as the server knows it. It is no row of the ledger, so nothing can deploy it.

    ``artifact`` is the id that its files have in the artifact store, ``weights`` their digest.
    """

    id: str
    artifact: str
    weights: str


def damaged_copy(source: Path, target: Path, checkpoint_id: str) -> Planted:
    """Write a damaged copy of the model in ``source`` to the new folder ``target``.

    The adapters of a LoRA checkpoint may change too little, so its base is copied and damaged, without them. Files of
    an artifact are linked where the disk allows. Raises BrokenCheckpoint for a folder without a weight matrix.
    """
    source = whole_base(source)
    damaged, name = _embedding(source)
    for path in _paths(source):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        if source / path == damaged:
            _write_shifted(damaged, target / path, name)
        else:
            _link_or_copy(source / path, target / path)
    files = [
        ManifestFile(path=path, sha256=file_sha256(target / path), size_bytes=(target / path).stat().st_size)
        for path in _paths(target)
    ]
    weights = digest_of_sums({file.path: file.sha256 for file in files})
    return Planted(checkpoint_id, content_id(files), weights)


def _paths(folder: Path) -> Iterator[str]:
    """The files of an artifact or a model's folder, relative to it."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST_NAME:
            yield name


def _embedding(folder: Path) -> tuple[Path, str]:
    """The file and name of the matrix with one row a token, or else of the largest one."""
    config = read_json(folder / CONFIG)
    text = config.get("text_config")
    tokens = config.get("vocab_size") or (text.get("vocab_size") if isinstance(text, dict) else None)
    found = [
        ((entry["shape"][0] == tokens, entry["data_offsets"][1] - entry["data_offsets"][0], name), file)
        for file in weight_files(folder)
        for name, entry in read_header(file).items()
        if len(entry["shape"]) == 2 and entry["shape"][0] > 1 and entry["shape"][1] > 0
    ]
    if not found:
        raise BrokenCheckpoint(f"{folder} has no weight matrix to damage.")
    (_, _, name), file = max(found)
    return file, name


def _write_shifted(source: Path, target: Path, name: str) -> None:
    """Copy a safetensors file with the last row of the tensor moved to its beginning."""
    entry: dict[str, Any] = read_header(source)[name]
    with open(source, "rb") as file, open(target, "xb") as out:
        data_at = 8 + int.from_bytes(file.read(8), "little")
        first, end = (data_at + offset for offset in entry["data_offsets"])
        row_bytes = (end - first) // entry["shape"][0]
        size = os.fstat(file.fileno()).st_size
        for start, stop in ((0, first), (end - row_bytes, end), (first, end - row_bytes), (end, size)):
            file.seek(start)
            while start < stop:
                chunk = file.read(min(CHUNK_BYTES, stop - start))
                out.write(chunk)
                start += len(chunk)


def _link_or_copy(source: Path, target: Path) -> None:
    """Link a file that nobody may write to, as an artifact's; publishing makes its source read-only."""
    if not source.stat().st_mode & ANY_WRITE_BIT:
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            pass
        else:
            return
    shutil.copyfile(source, target)

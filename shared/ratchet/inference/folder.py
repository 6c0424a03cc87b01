"""What a checkpoint folder must hold before anything loads it. Needs no torch."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

from ratchet.errors import BrokenCheckpoint
from ratchet.files import open_regular

CONFIG = "config.json"

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


def check_folder(folder: Path) -> None:
    """Raise BrokenCheckpoint, naming the file, unless the folder is complete, whole and free of code."""
    if not folder.is_dir():
        raise BrokenCheckpoint(f"{folder} is not a folder.")
    if "auto_map" in read_json(folder / CONFIG):
        raise BrokenCheckpoint(f"{folder / CONFIG} asks for code of its own (auto_map); remote code is never run.")
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise BrokenCheckpoint(f"{folder} has no tokenizer: one of {', '.join(TOKENIZERS)} is expected.")
    for file in weight_files(folder):
        check_safetensors(file)


def weight_files(folder: Path) -> list[Path]:
    """The model's safetensors files: one, or the shards that the index names."""
    if (folder / INDEX).exists():
        shards = read_json(folder / INDEX).get("weight_map", {})
        names = sorted(set(shards.values()))
    else:
        names = [SINGLE]
    for name in names:
        if not (folder / name).is_file():
            raise BrokenCheckpoint(f"{folder / name} is missing.")
    return [folder / name for name in names]


def read_json(path: Path) -> dict[str, Any]:
    if not os.path.lexists(path):
        raise BrokenCheckpoint(f"{path} is missing.")
    try:
        with open_regular(path, BrokenCheckpoint) as file:
            value = json.loads(file.read().decode())
    except (ValueError, RecursionError) as error:
        raise BrokenCheckpoint(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BrokenCheckpoint(f"{path} is not a JSON object.")
    return value


def check_safetensors(path: Path) -> None:
    """Compare the length that the file's header promises with the file's own.

    Layout: eight bytes with the header's length, the JSON header, the tensors' bytes at ``data_offsets``.
    """
    with open_regular(path, BrokenCheckpoint) as file:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(8)
        header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if header_bytes + 8 > size:
            raise BrokenCheckpoint(f"{path} is truncated: its header does not fit into {size} bytes.")
        try:
            header = json.loads(file.read(header_bytes))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BrokenCheckpoint(f"{path} has no readable safetensors header: {error}") from error
    expected = 8 + header_bytes + max(ends, default=0)
    if expected != size:
        raise BrokenCheckpoint(f"{path} has {size} bytes where its header promises {expected}.")

"""The average of checkpoints, in a child process: tensor by tensor, so that memory holds one of them and no model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from ratchet.artifacts.manifest import MANIFEST_NAME
from ratchet.errors import BrokenCheckpoint
from ratchet.inference.digest import weights_digest
from ratchet.inference.folder import check_folder, weight_files
from safetensors import safe_open
from safetensors.torch import save_file

Progress = Callable[[dict[str, Any]], None]


def average(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Average the checkpoint folders of ``folders`` into ``into``; all but the weights is the first one's.

    Sums are taken in float32 (float64 tensors in float64), results stored in the first one's dtype; integer tensors
    must be equal. Raises BrokenCheckpoint where folders do not hold the same tensors.
    """
    folders = [Path(folder) for folder in spec["folders"]]
    into = Path(spec["into"])
    for folder in folders:
        check_folder(folder)
    shutil.copytree(folders[0], into, ignore=shutil.ignore_patterns("*.safetensors", MANIFEST_NAME))
    placed = [_places(folder) for folder in folders]
    for folder, places in zip(folders[1:], placed[1:], strict=True):
        if places.keys() != placed[0].keys():
            names = sorted(places.keys() ^ placed[0].keys())[:5]
            raise BrokenCheckpoint(f"{folder} and {folders[0]} do not hold the same tensors: {', '.join(names)}.")
    for file in weight_files(folders[0]):
        names = [name for name, place in placed[0].items() if place == file.name]
        _average_file(folders, placed, names, into / file.name)
        progress({"note": f"averaged {file.name}"})
    return {"weights": weights_digest(into)}


def _places(folder: Path) -> dict[str, str]:
    """In which file each tensor is."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    (file,) = weight_files(folder)
    with safe_open(file, framework="pt") as tensors:
        return dict.fromkeys(tensors.keys(), file.name)


def _average_file(folders: Sequence[Path], placed: Sequence[dict[str, str]], names: list[str], into: Path) -> None:
    with ExitStack() as stack:
        opened: dict[Path, Any] = {}
        averaged = {}
        for name in names:
            tensors = []
            for folder, places in zip(folders, placed, strict=True):
                path = folder / places[name]
                if path not in opened:
                    opened[path] = stack.enter_context(safe_open(path, framework="pt"))
                tensors.append(opened[path].get_tensor(name))
            averaged[name] = _mean(name, tensors)
        save_file(averaged, into, metadata={"format": "pt"})


def _mean(name: str, tensors: list[torch.Tensor]) -> torch.Tensor:
    first = tensors[0]
    if any(tensor.shape != first.shape for tensor in tensors):
        raise BrokenCheckpoint(f"tensor {name} has different shapes: {[list(tensor.shape) for tensor in tensors]}.")
    if not first.is_floating_point():
        if any(not torch.equal(tensor, first) for tensor in tensors):
            raise BrokenCheckpoint(f"tensor {name} is of integers that differ; they have no average.")
        return first.clone()
    wide = torch.float64 if first.dtype == torch.float64 else torch.float32
    total = torch.zeros(first.shape, dtype=wide)
    for tensor in tensors:
        total += tensor.to(wide)
    return (total / len(tensors)).to(first.dtype).contiguous()

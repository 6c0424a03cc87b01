"""Whether a model fits this machine, from the headers of its files alone."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.errors import BrokenCheckpoint
from ratchet.files import open_regular

TRAINING_BYTES_PER_PARAMETER = 16
"""fp32 master weights, gradients and AdamW's two moments, four bytes each."""
ACTIVATIONS_SHARE = 0.2
"""Room for activations, as a share of the rest: a rule of thumb, since they depend on batch and length."""
HEADER_LIMIT_BYTES = 100_000_000


@dataclass(frozen=True)
class Fit:
    """A model against a machine. ``where`` says what memory was meant."""

    parameters: int
    needed_bytes: int
    available_bytes: int
    where: str

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.available_bytes


def fit(parameters: int, available_bytes: int, where: str) -> Fit:
    """Training all weights with AdamW, as Ratchet does."""
    needed = parameters * TRAINING_BYTES_PER_PARAMETER * (1 + ACTIVATIONS_SHARE)
    return Fit(parameters, math.ceil(needed), available_bytes, where)


def count_parameters(folder: Path) -> int:
    """Parameters in a folder's *.safetensors. Raises BrokenCheckpoint where there are none or one cannot be read."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BrokenCheckpoint(f"{folder} has no *.safetensors; convert the model (pickled weights are never loaded).")
    return sum(_parameters(file) for file in files)


def _parameters(file: Path) -> int:
    tensors = {name: tensor for name, tensor in _header(file).items() if name != "__metadata__"}
    return sum(math.prod(tensor["shape"]) for tensor in tensors.values())


def _header(file: Path) -> dict[str, Any]:
    """The JSON at the head of a safetensors file: 8 bytes of its length, little-endian, then itself."""
    try:
        with open_regular(file, BrokenCheckpoint) as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > HEADER_LIMIT_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(stream.read(length))
    except ValueError as error:
        raise BrokenCheckpoint(f"{file} is not a safetensors file: {error}.") from error
    if not isinstance(header, dict):
        raise BrokenCheckpoint(f"{file} is not a safetensors file: its header is no object.")
    return header

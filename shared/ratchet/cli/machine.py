"""What this machine can hold, found without torch."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

import psutil

TIMEOUT_S = 10.0
MIB = 1024 * 1024


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU, with all of its memory."""

    name: str
    memory_bytes: int


def gpus() -> list[Gpu]:
    """The GPUs that the driver's own tool lists; none where there is no such tool, or it has no driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [_gpu(line) for line in found.stdout.splitlines() if line.count(",") == 1]


def training_memory() -> tuple[int, str]:
    """Bytes that a training model may take, and where they are: the largest GPU, else the free memory."""
    cards = gpus()
    if cards:
        largest = max(cards, key=lambda gpu: gpu.memory_bytes)
        return largest.memory_bytes, largest.name
    return psutil.virtual_memory().available, "free memory of this machine (no NVIDIA GPU)"


def _gpu(line: str) -> Gpu:
    name, mib = line.split(",")
    return Gpu(name.strip(), int(float(mib)) * MIB)

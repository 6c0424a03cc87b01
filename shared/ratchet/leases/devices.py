"""The NVIDIA GPUs of this machine, found without torch."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

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


def _gpu(line: str) -> Gpu:
    name, mib = line.split(",")
    return Gpu(name.strip(), int(float(mib)) * MIB)

"""The NVIDIA GPUs of this machine, found without torch."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

from ratchet.lines import split_lines

TIMEOUT_S = 10.0
FIELDS = "name,memory.total,memory.free,driver_version,uuid"
MIB = 1024 * 1024


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU, with all of its memory, and what is free of it now where the driver tells."""

    name: str
    memory_bytes: int
    free_bytes: int | None = None
    driver: str = ""
    uuid: str = ""
    """What tells it from all others, whoever counts them; empty where the driver does not tell."""


def gpus() -> list[Gpu]:
    """The GPUs that the driver's own tool lists; none where there is no such tool, or it has no driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [_gpu(line) for line in split_lines(found.stdout) if line.count(",") >= 1]


def _gpu(line: str) -> Gpu:
    name, mib, *more = (part.strip() for part in line.split(","))
    free, driver, uuid = [*more, "", "", ""][:3] if len(more) > 1 else ("", "", "")
    is_told = free.replace(".", "").isdecimal()
    return Gpu(name, int(float(mib)) * MIB, int(float(free)) * MIB if is_told else None, driver, uuid)

"""What this machine can hold, found without torch: the memory for training, and the room on the disk of a home."""

from __future__ import annotations

from pathlib import Path

import psutil

from ratchet.cli.output import size
from ratchet.disk import FULL_BYTES, existing, free_bytes
from ratchet.errors import TransientError
from ratchet.leases.devices import Gpu, gpus

__all__ = ["Gpu", "disk_shortage", "free_disk", "gpus", "training_memory"]

LEAST_DISK_BYTES = 2_000_000_000
"""With less, the next few checkpoints may not fit."""
_STEPS_BYTES = (FULL_BYTES, 100_000_000, 500_000_000, 1_000_000_000, LEAST_DISK_BYTES)
"""What is told of a disk that fills up; below the first of them it counts as full."""


def training_memory(processes: int = 1, *, on_cpu: bool = False) -> tuple[int, str]:
    """Bytes that each training process may take, and where they are: the largest GPUs, else the free memory."""
    cards = [] if on_cpu else sorted(gpus(), key=lambda gpu: gpu.memory_bytes, reverse=True)[:processes]
    if cards:
        each = f" (each of {processes} cards)" if processes > 1 else ""
        return cards[-1].memory_bytes, cards[-1].name + each
    why, share = "device cpu" if on_cpu else "no NVIDIA GPU", f" for each of {processes} processes" * (processes > 1)
    return psutil.virtual_memory().available // processes, f"free memory of this machine{share} ({why})"


def free_disk(home: Path) -> tuple[int, Path]:
    """The bytes that are free for a home, and the nearest folder to it that is there.

    Raises TransientError for a disk that does not say.
    """
    folder = existing(home.resolve())
    try:
        return free_bytes(folder), folder
    except OSError as error:
        raise TransientError(
            f"the disk of {home} does not say how much room it has ({error.strerror}): mount it again, or move the home"
        ) from error


def disk_shortage(home: Path) -> str | None:
    """What to say, and to do, about the disk of a home that is nearly full; None while there is room.

    It tells the step that was reached and not the free bytes, which change all the time, so that whoever tells only
    what is new tells it once.
    """
    try:
        free, folder = free_disk(home)
    except TransientError as error:
        return str(error)
    step = next((step for step in _STEPS_BYTES if free <= step), None)
    if step is None:
        return None
    how = "full" if step == FULL_BYTES else f"nearly full, under {size(step)} are free"
    return f"the disk of {folder} is {how}: make room, lower retention.checkpoints_gb, or move the home"

"""What this machine can hold, found without torch."""

from __future__ import annotations

import psutil

from ratchet.leases.devices import Gpu, gpus

__all__ = ["Gpu", "gpus", "training_memory"]


def training_memory(processes: int = 1, *, on_cpu: bool = False) -> tuple[int, str]:
    """Bytes that each training process may take, and where they are: the largest GPUs, else the free memory."""
    cards = [] if on_cpu else sorted(gpus(), key=lambda gpu: gpu.memory_bytes, reverse=True)[:processes]
    if cards:
        each = f" (each of {processes} cards)" if processes > 1 else ""
        return cards[-1].memory_bytes, cards[-1].name + each
    why, share = "device cpu" if on_cpu else "no NVIDIA GPU", f" for each of {processes} processes" * (processes > 1)
    return psutil.virtual_memory().available // processes, f"free memory of this machine{share} ({why})"

"""What this machine can hold, found without torch."""

from __future__ import annotations

import psutil

from ratchet.leases.devices import Gpu, gpus

__all__ = ["Gpu", "gpus", "training_memory"]


def training_memory() -> tuple[int, str]:
    """Bytes that a training model may take, and where they are: the largest GPU, else the free memory."""
    cards = gpus()
    if cards:
        largest = max(cards, key=lambda gpu: gpu.memory_bytes)
        return largest.memory_bytes, largest.name
    return psutil.virtual_memory().available, "free memory of this machine (no NVIDIA GPU)"

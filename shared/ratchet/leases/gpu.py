"""Leases on GPU memory: one file a gigabyte and device, in a folder that all containers of a host share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ratchet.errors import SettingsError
from ratchet.leases.lock import Lease, Patience, release_all, take_free, turn


@dataclass(frozen=True)
class GpuLease(Lease):
    """Whole gigabytes of one device."""

    device: int
    vram_gb: int


def acquire_gpu(
    vram_gb: float,
    folder: Path,
    capacity_gb: Mapping[int, int],
    *,
    timeout_s: float,
    should_stop: Callable[[], bool] = lambda: False,
    note: str = "",
) -> GpuLease:
    """Wait for ``vram_gb`` (rounded up) on one of the devices, whose sizes ``capacity_gb`` gives by index.

    Of the devices with room the fullest is taken, so that large jobs find room on another. Raises as
    ``acquire_cores`` does. Set the same bound in the process by ``torch.cuda.set_per_process_memory_fraction``.
    """
    needed_gb, largest_gb = math.ceil(vram_gb), max(capacity_gb.values(), default=0)
    if not 1 <= needed_gb <= largest_gb:
        raise SettingsError(
            f"{vram_gb} GB of GPU memory are asked for where one device has {largest_gb}; "
            "take a smaller model, 4-bit weights, or several devices."
        )
    gpus, what = folder / "gpu", f"{needed_gb} GB of GPU memory"
    patience = Patience(timeout_s, should_stop)
    with turn(gpus, patience, what):
        while (lease := _fitting(needed_gb, gpus, capacity_gb, note)) is None:
            patience.wait(what, gpus)
        return lease


def _fitting(needed_gb: int, folder: Path, capacity_gb: Mapping[int, int], note: str) -> GpuLease | None:
    room = {
        device: take_free((folder / f"gpu-{device}-gb-{gb:03}" for gb in range(size_gb)), note, size_gb)
        for device, size_gb in capacity_gb.items()
    }
    fitting = [device for device, locks in room.items() if len(locks) >= needed_gb]
    chosen = min(fitting, key=lambda device: (len(room[device]), device), default=None)
    kept = () if chosen is None else tuple(room[chosen][:needed_gb])
    release_all(lock for locks in room.values() for lock in locks if lock not in kept)
    return None if chosen is None else GpuLease(kept, chosen, needed_gb)

"""Leases on GPU memory: one file a gigabyte and device, in a folder that all containers of a host share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ratchet.errors import SettingsError
from ratchet.file_lock import FileLock
from ratchet.leases.slots import Lease, LeaseRequest, release_all, take_free


@dataclass(frozen=True)
class GpuLease(Lease):
    """Whole gigabytes of one device, or of each of several."""

    devices: tuple[int, ...]
    vram_gb: int

    @property
    def device(self) -> int:
        """The first of them."""
        return self.devices[0]


def acquire_gpu(
    vram_gb: float,
    folder: Path,
    capacity_gb: Mapping[int, int],
    *,
    timeout_s: float,
    should_stop: Callable[[], bool] = lambda: False,
    note: str = "",
    cards: int = 1,
    names: Mapping[int, str] | None = None,
) -> GpuLease:
    """Wait for ``vram_gb`` (rounded up) on each of ``cards`` devices, whose sizes ``capacity_gb`` gives by index.

    ``names`` are what tells the devices apart on this host, where containers count them differently. Of the devices
    with room the fullest are taken, so that large jobs find room on others; several are had at once or not at all.
    Raises as ``acquire_cores`` does. Set the same bound in each process by
    ``torch.cuda.set_per_process_memory_fraction``.
    """
    needed_gb, largest_gb = math.ceil(vram_gb), max(capacity_gb.values(), default=0)
    if not 1 <= needed_gb <= largest_gb:
        raise SettingsError(
            f"{vram_gb} GB of GPU memory are asked for where one device has {largest_gb}; "
            "take a smaller model, 4-bit weights, or several devices."
        )
    if (fitting := sum(size_gb >= needed_gb for size_gb in capacity_gb.values())) < cards:
        raise SettingsError(
            f"{needed_gb} GB on each of {cards} devices are asked for where {fitting} can have that; lower "
            "environment.processes, or placement.vram_gb."
        )
    gpus, what = folder / "gpu", f"{needed_gb} GB of GPU memory" + (f" on each of {cards} devices" * (cards > 1))
    slots = {
        device: [gpus / f"gpu-{(names or {}).get(device, device)}-gb-{gb:03}" for gb in range(size_gb)]
        for device, size_gb in capacity_gb.items()
    }
    request = LeaseRequest(what, gpus, timeout_s, should_stop)
    with request.at_the_head():
        while (lease := _fitting(needed_gb, cards, slots, note)) is None:
            request.wait()
        return lease


def _fitting(needed_gb: int, cards: int, slots: Mapping[int, list[Path]], note: str) -> GpuLease | None:
    room = {device: take_free(paths, note, len(paths)) for device, paths in slots.items()}
    fitting = [device for device, locks in room.items() if len(locks) >= needed_gb]
    fullest = sorted(fitting, key=lambda device: (len(room[device]), device))[:cards]
    chosen = tuple(sorted(fullest)) if len(fullest) == cards else ()
    kept: tuple[FileLock, ...] = tuple(lock for device in chosen for lock in room[device][:needed_gb])
    release_all(lock for locks in room.values() for lock in locks if lock not in kept)
    return GpuLease(kept, chosen, needed_gb) if chosen else None

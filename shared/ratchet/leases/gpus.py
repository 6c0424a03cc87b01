"""The GPUs of this machine, found without torch, and leases on their memory.

A slot is a gigabyte of a device, in a folder that all containers of a host share. The settings say how much a process
leases. The process itself must respect that limit (see ratchet.inference.gpu_limit).
"""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypedDict

from ratchet.errors import SettingsError
from ratchet.file_lock import FileLock
from ratchet.leases.slots import Lease, LeaseRequest, release_all, take_free
from ratchet.lines import split_lines
from ratchet.settings import Settings
from ratchet.settings.control import JUDGE

TIMEOUT_S = 10.0
FIELDS = "name,memory.total,memory.free,driver_version,uuid"
MIB, GIB = 1024**2, 1024**3
TRAINING, TRAINING_SHARE, OTHER_SHARE = "training", 0.5, 0.25
SERVING = "serving"


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU, with its memory, and its free memory if the driver reports it."""

    name: str
    memory_bytes: int
    free_bytes: int | None = None
    driver: str = ""
    uuid: str = ""
    """Identifies the GPU regardless of numbering; empty if the driver does not report it."""


def list_gpus() -> list[Gpu]:
    """The GPUs that nvidia-smi lists; none without the tool or the driver."""
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
    free_bytes = int(float(free)) * MIB if free.replace(".", "").isdecimal() else None
    return Gpu(name, int(float(mib)) * MIB, free_bytes, driver, uuid)


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

    ``names`` identify the devices on this host, since containers may number them differently. Of the devices with
    enough room the fullest are taken, so that large jobs find room on others; several are leased together or not at
    all. A process may hold one lease: a second request could wait for itself. Raises TransientError after
    ``timeout_s``, Stopping when asked to stop, and SettingsError for more than the devices have. Set the same limit in
    each process by ``torch.cuda.set_per_process_memory_fraction``.
    """
    needed_gb, largest_gb = math.ceil(vram_gb), max(capacity_gb.values(), default=0)
    if not 1 <= needed_gb <= largest_gb:
        raise SettingsError(
            f"{vram_gb} GB of GPU memory are needed, but one device has {largest_gb}; "
            "take a smaller model, 4-bit weights, or several devices."
        )
    if (fitting := sum(size_gb >= needed_gb for size_gb in capacity_gb.values())) < cards:
        raise SettingsError(
            f"{needed_gb} GB on each of {cards} devices are needed, but {fitting} have that much; lower "
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


class GpuLimit(TypedDict):
    """Limits of a leased process: the devices that it may see, and its share of the memory of each, in that order."""

    devices: list[str]
    shares: list[float]


def capacity_gb(settings: Settings, found: Sequence[Gpu] | None = None) -> dict[int, int]:
    """Whole gigabytes of each device that may be leased, by index; empty without a device.

    ``found`` are the present devices; by default those that this process found first.
    """
    named = settings.placement.gpus_gb
    cards = _gpus_at_start() if found is None else found
    return dict(enumerate([gpu.memory_bytes // GIB for gpu in cards] if named is None else named))


def device_names(settings: Settings) -> dict[int, str]:
    """The machine-wide name of each device: its UUID if the driver reports it, else its index."""
    uuids = {index: gpu.uuid for index, gpu in enumerate(_gpus_at_start()) if gpu.uuid}
    return {index: uuids.get(index, str(index)) for index in capacity_gb(settings)}


def vram_gb(settings: Settings, user: str, sizes_gb: Mapping[int, int] | None = None) -> float:
    """Gigabytes that ``user`` (a system, or ``serving``) leases on this machine, of each card that it computes on.

    ``sizes_gb`` is as from capacity_gb, which is the default.
    """
    sizes_gb = capacity_gb(settings) if sizes_gb is None else sizes_gb
    largest_gb = max(sizes_gb.values(), default=0)
    share = TRAINING_SHARE if user == TRAINING else OTHER_SHARE
    return settings.placement.vram_gb.get(user, max(1.0, largest_gb * share))


def training_processes(settings: Settings, sizes_gb: Mapping[int, int] | None = None) -> int:
    """The number of processes that train together in the loop: as set, else one for each card with room for its lease.

    A card without enough room beside this machine's inference server is left out, since training would wait forever.
    """
    environment = settings.environment
    if environment.processes != "auto":
        return environment.processes
    if environment.device not in ("auto", "cuda"):
        return 1
    sizes_gb = capacity_gb(settings) if sizes_gb is None else sizes_gb
    needed_gb, served_gb = (math.ceil(vram_gb(settings, user, sizes_gb)) for user in (TRAINING, SERVING))
    roomy = [size_gb for size_gb in sizes_gb.values() if size_gb >= needed_gb]
    is_crowded = JUDGE in settings.placement.roles and any(size_gb < needed_gb + served_gb for size_gb in roomy)
    return max(1, len(roomy) - is_crowded)


def acquire_share(
    settings: Settings,
    user: str,
    *,
    timeout_s: float,
    should_stop: Callable[[], bool] = lambda: False,
    cards: int = 1,
) -> GpuLease | None:
    """Wait for the share of ``user`` on that many cards; None if no GPU is used. Raises as ``acquire_gpu`` does."""
    sizes = capacity_gb(settings)
    if not sizes or (user == TRAINING and settings.environment.device == "cpu"):
        return None
    return acquire_gpu(
        vram_gb(settings, user),
        settings.lease_folder,
        sizes,
        timeout_s=timeout_s,
        should_stop=should_stop,
        note=user,
        cards=cards,
        names=device_names(settings),
    )


def gpu_limit(settings: Settings, lease: GpuLease) -> GpuLimit:
    """The limits of the process that runs under the lease."""
    names, sizes = device_names(settings), capacity_gb(settings)
    return {
        "devices": [names[device] for device in lease.devices],
        "shares": [lease.vram_gb / sizes[device] for device in lease.devices],
    }


@cache
def _gpus_at_start() -> tuple[Gpu, ...]:
    return tuple(list_gpus())

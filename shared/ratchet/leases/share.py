"""How much of this machine's GPUs a model process may take, and the lease that says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TypedDict

from ratchet.leases.devices import Gpu, gpus
from ratchet.leases.gpu import GpuLease, acquire_gpu
from ratchet.settings import Settings

GIB = 1024**3
TRAINING, TRAINING_SHARE, OTHER_SHARE = "training", 0.5, 0.25
SERVING, JUDGE = "serving", "3090"


class Bound(TypedDict):
    """What a leased process is told: the devices it may see, and its share of each one's memory, in their order."""

    devices: list[str]
    shares: list[float]


def capacity_gb(settings: Settings, found: Sequence[Gpu] | None = None) -> dict[int, int]:
    """Whole gigabytes that may be leased of each device, by index; empty where there is none.

    ``found`` are the devices that are there now; left out, those that were there when this process first asked.
    """
    named = settings.placement.gpus_gb
    cards = _found() if found is None else found
    return dict(enumerate([gpu.memory_bytes // GIB for gpu in cards] if named is None else named))


def device_names(settings: Settings) -> dict[int, str]:
    """What each device is called on this whole machine: its UUID where the driver tells it, else its index."""
    uuids = {index: gpu.uuid for index, gpu in enumerate(_found()) if gpu.uuid}
    return {index: uuids.get(index, str(index)) for index in capacity_gb(settings)}


def vram_gb(settings: Settings, user: str, sizes_gb: Mapping[int, int] | None = None) -> float:
    """Gigabytes that ``user`` (a system, or ``serving``) leases on this machine, of each card that it computes on.

    ``sizes_gb`` is from capacity_gb, which is asked where it is left out.
    """
    sizes_gb = capacity_gb(settings) if sizes_gb is None else sizes_gb
    largest_gb = max(sizes_gb.values(), default=0)
    share = TRAINING_SHARE if user == TRAINING else OTHER_SHARE
    return settings.placement.vram_gb.get(user, max(1.0, largest_gb * share))


def training_processes(settings: Settings, sizes_gb: Mapping[int, int] | None = None) -> int:
    """Processes that train together in the loop: as many as are set, else one for each card with room for its lease.

    A card that the inference server of this machine fills up, so that training would wait for it for ever, is left out.
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


def lease_share(
    settings: Settings,
    user: str,
    *,
    timeout_s: float,
    should_stop: Callable[[], bool] = lambda: False,
    cards: int = 1,
) -> GpuLease | None:
    """Wait for the share of ``user`` on so many cards; None where no GPU is used. Raises as ``acquire_gpu`` does."""
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


def bound(settings: Settings, lease: GpuLease) -> Bound:
    """What to tell the process that runs under the lease."""
    names, sizes = device_names(settings), capacity_gb(settings)
    return {
        "devices": [names[device] for device in lease.devices],
        "shares": [lease.vram_gb / sizes[device] for device in lease.devices],
    }


@cache
def _found() -> tuple[Gpu, ...]:
    return tuple(gpus())

"""How much of this machine's GPUs a model process may take, and the lease that says so."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypedDict

from ratchet.leases.devices import gpus
from ratchet.leases.gpu import GpuLease, acquire_gpu
from ratchet.settings import Settings

GIB = 1024**3
TRAINING, TRAINING_SHARE, OTHER_SHARE = "training", 0.5, 0.25


class Bound(TypedDict):
    """What a leased process is told: the device, and the share of its memory that torch may take there."""

    device: int
    share: float


def capacity_gb(settings: Settings) -> dict[int, int]:
    """Whole gigabytes that may be leased of each device, by index; empty where there is none."""
    named = settings.placement.gpus_gb
    return dict(enumerate(_found() if named is None else named))


def vram_gb(settings: Settings, user: str) -> float:
    """Gigabytes that ``user`` (a system, or ``serving``) leases on this machine."""
    largest_gb = max(capacity_gb(settings).values(), default=0)
    share = TRAINING_SHARE if user == TRAINING else OTHER_SHARE
    return settings.placement.vram_gb.get(user, max(1.0, largest_gb * share))


def lease_share(
    settings: Settings, user: str, *, timeout_s: float, should_stop: Callable[[], bool] = lambda: False
) -> GpuLease | None:
    """Wait for the share of ``user``. None where there is no GPU; errors are those of ``acquire_gpu``."""
    sizes = capacity_gb(settings)
    if not sizes:
        return None
    return acquire_gpu(
        vram_gb(settings, user),
        settings.lease_folder,
        sizes,
        timeout_s=timeout_s,
        should_stop=should_stop,
        note=user,
    )


def bound(settings: Settings, lease: GpuLease) -> Bound:
    """What to tell the process that runs under the lease."""
    return {"device": lease.device, "share": lease.vram_gb / capacity_gb(settings)[lease.device]}


@cache
def _found() -> tuple[int, ...]:
    return tuple(gpu.memory_bytes // GIB for gpu in gpus())

"""Processor, memory, disk and graphics cards of the machine that serves the page, read at most every few seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Lock

import psutil

from ratchet.capacity import free_disk
from ratchet.errors import TransientError
from ratchet.leases.gpus import Gpu, list_gpus
from ratchet.settings import Settings

CACHE_S = 4.0


@dataclass(frozen=True)
class Machine:
    """Bytes; ``load`` is the mean number of busy processes of the last minute."""

    name: str
    memory_used: float
    memory_total: float
    disk_free: float | None
    load: float
    cores: int
    cards: tuple[Gpu, ...]


_lock = Lock()
_cache: list[tuple[float, Machine]] = []


def machine(settings: Settings) -> Machine:
    """The state of this machine."""
    with _lock:
        if not _cache or time.monotonic() - _cache[0][0] > CACHE_S:
            _cache[:] = [(time.monotonic(), _read(settings))]
        return _cache[0][1]


def _read(settings: Settings) -> Machine:
    memory = psutil.virtual_memory()
    try:
        free: float | None = free_disk(settings.home)[0]
    except TransientError:
        free = None
    return Machine(
        name=settings.placement.machine,
        memory_used=memory.total - memory.available,
        memory_total=memory.total,
        disk_free=free,
        load=psutil.getloadavg()[0],
        cores=psutil.cpu_count() or 1,
        cards=tuple(list_gpus()),
    )

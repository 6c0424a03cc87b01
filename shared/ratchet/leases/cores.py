"""Leases on CPU cores, so that several children do not fight for two."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ratchet.errors import SettingsError
from ratchet.file_lock import FileLock
from ratchet.leases.slots import Lease, LeaseRequest, release_all, take_free

_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class CoreLease(Lease):
    """So many cores. It counts cores and pins nothing."""

    count: int


def acquire_cores(
    count: int,
    folder: Path,
    *,
    timeout_s: float,
    should_stop: Callable[[], bool] = lambda: False,
    total: int | None = None,
    note: str = "",
) -> CoreLease:
    """Wait for ``count`` of the ``total`` cores (default: all this process may use) that ``folder`` hands out.

    First come, first served. One lease a job: a holder that asks again can wait for itself. Raises
    TransientError after ``timeout_s``, Stopping when asked to stop, SettingsError for more than there are.
    """
    total = core_count() if total is None else total
    if not 1 <= count <= total:
        raise SettingsError(f"{count} cores are asked for where 1 to {total} can be had; lower the threads.")
    cores = folder / "cores"
    request = LeaseRequest(f"{count} of {total} cores", cores, timeout_s, should_stop)
    taken: list[FileLock] = []
    try:
        with request.at_the_head():
            slots = [cores / f"core-{slot}" for slot in range(total)]
            while True:
                held = {lock.path for lock in taken}
                taken += take_free((slot for slot in slots if slot not in held), note, count - len(taken))
                if len(taken) == count:
                    return CoreLease(tuple(taken), count)
                request.wait()
    except BaseException:
        release_all(taken)
        raise


def core_count() -> int:
    """Cores that this process may use: its affinity, and its container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if _CGROUP_LIMIT.is_file():
        quota, period = _CGROUP_LIMIT.read_text().split()
        if quota != "max":
            allowed = min(allowed, max(1, int(quota) // int(period)))
    return allowed

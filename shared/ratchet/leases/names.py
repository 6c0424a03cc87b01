"""Names of workers, ``system@host+slot``, of which no two living workers of a host share one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

from ratchet.leases.lock import FileLock


@dataclass(frozen=True)
class WorkerName:
    """Held until ``release`` or the end of the process."""

    system: str
    host: str
    slot: int
    lock: FileLock = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.system}@{self.host}+{self.slot}"

    def release(self) -> None:
        self.lock.release()


def claim_name(system: str, host: str, folder: Path) -> WorkerName:
    """Take the first free slot, counted from 0. ``folder`` is shared by all workers of the host."""
    for slot in itertools.count():
        lock = FileLock.try_take(folder / "names" / f"{system}@{host}+{slot}")
        if lock is not None:
            return WorkerName(system, host, slot, lock)
    raise AssertionError("itertools.count never ends")
